"""One script per stage of dvc.yaml, and those that talk to Kaggle: read, one call, write."""

import atexit
import gc

from pipeline.errors import stop_in_one_line

stop_in_one_line()
# As a process ends, Python searches all that torch and transformers have loaded for cycles, several times: a second.
atexit.register(gc.freeze)
