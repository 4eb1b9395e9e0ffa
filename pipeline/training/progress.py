"""Progress for people: a bar on a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], label: str) -> Iterator[T]:
    """Yields `items` while it shows how far they are: with tqdm where stderr is a terminal, else in log lines."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, dynamic_ncols=True)
        return
    total = len(items) if isinstance(items, Sized) else None
    started = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done != total:
            left = f", {(now - started) / done * (total - done):.0f} s left" if total else ""
            print(f"{label}: {done}/{total or '?'} in {now - started:.0f} s{left}", flush=True)
            last = now
    print(f"{label}: {done}/{total or done} in {time.monotonic() - started:.0f} s", flush=True)
