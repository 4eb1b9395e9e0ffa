"""How steady is fine-tuning? Strategies x data sets x seeds, on 1,000 labels of real text.

protocol.py is what was fixed beforehand, strategies.py what is compared, studies.py which runs belong together; runs.py
makes one, pool.py those that are missing; summary.py, statistics.py and tables.py say what came out.
"""
