"""Is Podium right on a GPU, and how fast?

parts.py lists the parts and what they need; __main__.py watches over worker.py, a process that runs them and tells each
row as it is found; goals.py says which goals were met. bench.py is what the parts share, a module each.
"""

from benchmarks.gpu.unused import stand_in

stand_in()
