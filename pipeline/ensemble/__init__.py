"""The second level: from the members' out-of-fold predictions to stackers, their calibration and the ladder.

May import competitions and data; evaluation, planning, kernel, members, package and report may import it. The kernel
ships ladder.py and what that needs, nothing that fits.
Begin with ladder.py, then stackers.py; oof.py collects the predictions, fitting.py and nested.py fit and score.
"""
