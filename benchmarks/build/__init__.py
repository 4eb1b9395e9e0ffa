"""How long does a build take, how much memory, and does its CV foretell the leaderboard?

pipeline.py builds demo and arena, data.py the first stages on a million rows, history.py a series of submissions.
"""
