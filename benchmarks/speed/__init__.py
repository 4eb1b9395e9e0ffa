"""Training and inference against what a user of Hugging Face's libraries would write, on real text, in one run.

python -m benchmarks.speed          # about half an hour on two cores; writes benchmarks/results/speed.json
"""
