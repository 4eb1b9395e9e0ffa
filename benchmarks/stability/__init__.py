"""How steady fine-tuning is: strategies x data sets x seeds, on 1,000 labels of real text.

python -m benchmarks.stability        # everything, about two hours on two cores; it goes on where it was stopped
"""
