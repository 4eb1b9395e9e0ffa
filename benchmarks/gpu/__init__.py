"""Is Podium right on a GPU, and how fast?

A part is a function Bench -> rows in a module of its own; __main__.py runs the parts. bench.py is what they share.
"""
