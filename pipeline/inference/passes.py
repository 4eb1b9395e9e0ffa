"""The passes in which a fold model answers, and how their answers become one.

`first` reads every row; `swap` reads it again with its sides exchanged; `long` reads those rows again that were
truncated, with more tokens. Needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.settings.finetuning import NetworkSettings
from pipeline.settings.member import MemberSettings

FIRST, SWAP, LONG = "first", "swap", "long"


def passes_of(settings: MemberSettings | None) -> tuple[str, ...]:
    """Returns the passes that the settings of a saved member ask for; without a network there is the first alone."""
    if not isinstance(settings, NetworkSettings):
        return (FIRST,)
    swap = (SWAP,) if settings.inference.swap else ()
    long = (LONG,) if settings.inference.long_tokens else ()
    return (FIRST, *swap, *long)


def combined(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns (rows, outputs) means from those of the passes that have run; at least one.

    A NaN row of a part is a row to which that pass has no answer. `swap` is mirrored back to the row's own order
    already. The base is `first`, or the mean of `first` and `swap` where both have spoken; an answer of `long` replaces
    it. A row with neither `first` nor `long` is NaN.
    """
    lacking = np.full_like(next(iter(parts.values())), np.nan, dtype=np.float64)
    first, swap, long = (parts.get(name, lacking) for name in (FIRST, SWAP, LONG))
    base = np.where(_spoken(first), first, np.nan)
    base = np.where(_spoken(first) & _spoken(swap), (first + swap) / 2, base)
    return np.where(_spoken(long), long, base)


def _spoken(part: np.ndarray) -> np.ndarray:
    """Returns whether the pass answers each row, (rows, 1)."""
    return np.isfinite(part).all(axis=1, keepdims=True)
