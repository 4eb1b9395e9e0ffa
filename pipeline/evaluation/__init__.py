"""How good the members and their stack are: metrics/cv.json, the leak test, and what the report asks besides.

May import competitions, data and ensemble; stages and benchmarks import it, the kernel never does.
Begin with cv.py, whose one function is the stage `stack`; scores.py is what metrics/cv.json holds.
"""
