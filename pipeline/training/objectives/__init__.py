"""What a network learns: the answers of rows, words of a text, or several tasks in turn.

May import models and inference, and the rest of training only by name; loop, restarts, pretrain and members import it.
Begin with objective.py, what the loop asks of all; supervised.py has the losses, multitask.py the tasks beside it.
"""
