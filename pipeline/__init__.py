"""Podium: text competitions from raw CSV to a rehearsed Kaggle kernel."""

import logging
import os

# LightGBM's threads wait by spinning, which on a machine that does other work too costs several times the run. It has
# to be said before the OpenMP library is loaded; a value that the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# NumPy's threads spin too, and cannot be told not to: the stack's small products took 25 times as long on two threads
# of a machine at work as on one. With one thread a sum also has the same bits on every machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# bitsandbytes says on every import that an optional package is missing, before the one line that an error should be.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
