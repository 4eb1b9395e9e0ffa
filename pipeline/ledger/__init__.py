"""The history of submissions: the submitted commit (sub-N), its score (lb-N, lb.json, ledger.csv), what it changed.

Nothing here needs a network: pipeline/kaggle/sync.py brings the scores. The rooms kaggle and report import it; it
imports none of the other rooms. Begin with ledger.py, an entry and the two files; git.py and history.py ask git and
DVC, agreement.py compares CV with the leaderboard, compare.py makes the table of `make compare`,
selection.py that of `make choose`.
"""
