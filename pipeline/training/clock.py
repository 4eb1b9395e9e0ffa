"""Where a run's seconds go, told by plain clocks around the real loop's parts: what `make profile` shows.

On a GPU a part's seconds are those of the host, which goes on while the GPU computes; it waits for it in `waiting`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

SPENT: defaultdict[str, float] = defaultdict(float)
"""Seconds of this process by part; `run` holds all others but `tokenising`. A clock costs two microseconds."""


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Adds the body's seconds to a part."""
    began = time.perf_counter()
    try:
        yield
    finally:
        SPENT[part] += time.perf_counter() - began


@contextmanager
def uncounted() -> Iterator[None]:
    """Counts nothing of the body."""
    before = SPENT.copy()
    try:
        yield
    finally:
        SPENT.clear()
        SPENT.update(before)
