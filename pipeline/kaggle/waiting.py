"""Waits for something that goes on elsewhere: with a time limit, and a line that says how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import PodiumError
from pipeline.ledger.ledger import clock

T = TypeVar("T")
AGAIN = "run the same command again to go on waiting"
LINE_SECONDS = 60.0
"""A line at every change, and at least that often."""


def wait(what: str, look: Callable[[], tuple[str, T | None]], limit: float, poll: float, hint: str = AGAIN) -> T:
    """Calls `look` every `poll` seconds until its second value is there; the first says how things stand.

    Raises: PodiumError after `limit` seconds and for Ctrl-C, with `hint` at its end.
    """
    started, shown, last = time.monotonic(), -LINE_SECONDS, ""
    try:
        while True:
            state, result = look()
            waited = time.monotonic() - started
            if state != last or waited - shown >= LINE_SECONDS:
                print(f"{what}: {state}, {clock(waited)} of at most {clock(limit)}", flush=True)
                last, shown = state, waited
            if result is not None:
                return result
            if waited + poll > limit:
                raise PodiumError(f"{what}: still {state} after {clock(waited)}; {hint}")
            time.sleep(poll)
    except KeyboardInterrupt:  # a wait of hours is left more often than it is sat through
        raise PodiumError(f"{what}: not waited for any longer; {hint}") from None
