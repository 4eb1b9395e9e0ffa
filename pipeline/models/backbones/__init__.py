"""A pretrained network and its tokenizer as one checked folder in Hugging Face layout.

obtain.py fills the folder from the hub (hub.py), a path, or builds a small one (scratch.py); tokenizer.py settles its
tokenizer; loading.py brings it into memory in a member's precision. deberta_v3.py has the published shape's settings.
Begin with obtain.py.
"""
