"""From CSV files to what members learn from: checked rows, folds, text features, token ids, batches.

May import competitions; every room but settings may import it. The kernel ships what reads the test file and makes
features and tokens of it, so that training and kernel see the same row in the same way.
Begin with ingest.py, which says what a row is; then folds.py, and text.py for what networks read.
"""
