"""The training loop and its parts, for fine-tuning and pretraining alike.

loop.py is one step after the other; gradients.py computes them, optim.py makes the step, `techniques/` has what both
call by name; guard.py watches, restarts.py begins again, checkpoint.py and state.py make a killed run go on to the same
bits; `objectives/` says what is learned, `devices/` on what. May import settings, data, models and inference; members
import it. Begin with loop.py.
"""
