"""What the loop calls by name, each switched by params.yaml: attacks, penalties, averages, DENI.

One file per idea, with its paper, its formula and its property tests. Their settings stand in
pipeline/settings/techniques.py. docs/extending.md says how to add one.
"""
