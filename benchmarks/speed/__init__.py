"""How fast are training and inference, and what is left to gain?

The room's own command compares Podium (ours.py) with Hugging Face's libraries (theirs.py) under protocol.py, and
attention.py does so for attention alone. padding.py counts what is computed for nothing, overhead.py measures what each
technique costs, shapes.py what the real networks take. one_shape.py builds random networks, for benchmarks.gpu too.
"""
