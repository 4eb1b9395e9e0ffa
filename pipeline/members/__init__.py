"""One fold model from start file to receipt, whatever its kind.

start.py resolves what decides a member's training, fold.py trains it, predicts and writes the receipt, refit.py trains
on every row, average.py averages fold models, probe.py looks for leaks; encoder.py, decoder.py, tabular.py and
external.py train one kind each, finetune.py is what the first two share; `beside/` has what a fold model learns beside
its own rows. May import everything below it; nobody but stages, experiments, generation and package does. Begin with
fold.py.
"""
