"""Streams of random numbers: one seed for each place, so that no run depends on what was drawn before."""

from __future__ import annotations

import numpy as np


def seed_of(*numbers: int) -> int:
    """Returns one seed for torch from a stream's seed and the place in it."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)
