"""Progress for people: a bar on a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[T], label: str, note: Callable[[], str] = lambda: "", before: int = 0) -> Iterator[T]:
    """Yields `items` while it shows how far they are: with tqdm where stderr is a terminal, else in log lines.

    `note` gives what else there is to say (a loss, a rate); `before` items were done in an earlier run.
    """
    total = len(items) + before if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        with tqdm(items, desc=label, total=total, initial=before, dynamic_ncols=True) as bar:
            for item in bar:
                yield item
                bar.set_postfix_str(note(), refresh=False)
        return
    started = last = time.monotonic()
    done = before
    for done, item in enumerate(items, start=before + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done != total:
            left = f", {(now - started) / (done - before) * (total - done):.0f} s left" if total else ""
            print(f"{label}: {done}/{total or '?'} in {now - started:.0f} s{left}{_after_comma(note())}", flush=True)
            last = now
    print(f"{label}: {done}/{total or done} in {time.monotonic() - started:.0f} s{_after_comma(note())}", flush=True)


def _after_comma(note: str) -> str:
    return f", {note}" if note else ""
