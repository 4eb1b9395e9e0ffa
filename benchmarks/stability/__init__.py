"""How steady fine-tuning is: strategies x data sets x seeds, on 1,000 labels of real text.

python -m benchmarks.stability        # everything; it goes on where it was stopped

The guard and the quiet techniques, 500 runs, took an hour and a half on two cores. Attacks, DENI and the pool of runs
that it is compared with have not been run yet, and will take longer.
"""
