"""What params.yaml may say about members and backbones: one frozen dataclass per section, `recipes/` by name.

Each key has its meaning under it, with its source. The standard library alone is needed, so the kernel ships these
files; pydantic checks a file at the door (pipeline/config.py). Everybody may import this room; it imports
pipeline/section.py alone. Begin with finetuning.py, then encoder.py.
"""
