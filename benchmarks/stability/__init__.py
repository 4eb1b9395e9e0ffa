"""How steady fine-tuning is: strategies x data sets x seeds, on 1,000 labels of real text.

python -m benchmarks.stability --study guard        # a study; it goes on where it was stopped

The guard and the quiet techniques, 500 runs, took an hour and a half on two cores; attacks, penalties and DENI with the
pool of runs that it is compared with take about as long.
"""
