"""From checked rows to what members learn from: folds, text features, token ids, batches; and the generated demo.

May import competitions; every room but settings may import it. The kernel ships what makes features and tokens of a
row, so that training and kernel see the same row in the same way.
Begin with rows.py and folds.py, then text.py for what networks read.
"""
