"""Podium: text competitions from raw CSV to a rehearsed Kaggle kernel."""

import os

# LightGBM's threads wait by spinning, which on a machine that does other work too costs several times the run. It has
# to be said before the OpenMP library is loaded; a value that the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
