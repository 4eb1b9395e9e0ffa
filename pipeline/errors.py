"""The one error that a user can cause, which ends a stage with one clear line and exit code 2; and Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from types import TracebackType

STOPPED = 130
"""The exit code after a Ctrl-C, as shells have it."""


BREAKS = {ord(each): ascii(each)[1:-1] for each in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}


class PodiumError(Exception):
    """Says in one line which file, column or key is wrong, what was expected and what was found.

    A line break in what a user has written, such as a class of two lines, is told as an escape.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message.translate(BREAKS))


def nearest(name: str, known: Iterable[str]) -> str:
    """`' (did you mean "x"?)'` for the known name closest to `name`, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


UNDER_REPRO = "PODIUM_UNDER_REPRO"
"""Set by `make repro` for its stages: it says the line itself, since a shell between may swallow their exit code."""


def say_stopped(in_pipeline: bool = True) -> None:
    """Prints the one line after a Ctrl-C, but for a stage of `make repro`, which prints it once for all."""
    if in_pipeline and UNDER_REPRO in os.environ:
        return
    goes_on = "run `make repro` again: it goes on where it was" if in_pipeline else "run it again"
    print(f"stopped; {goes_on}", file=sys.stderr, flush=True)


def stop_in_one_line() -> None:
    """Lets a Ctrl-C end this process in one line also before its stage has begun: imports take seconds."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt) or os.environ.get("PODIUM_DEBUG") == "1":
            sys.__excepthook__(kind, error, trace)
            return
        say_stopped()
        os._exit(STOPPED)  # else Python ends itself by the signal, and DVC would have another number

    sys.excepthook = hook


class NoMemoryError(PodiumError, MemoryError):
    """Memory is too small for what cannot be divided any more."""


class DivergedError(PodiumError):
    """A loss is not finite: the learning rate is too high, or the precision too low."""


RAN_OUT = ("out of memory", "STATUS_ALLOC_FAILED", "can't allocate memory")
"""What CUDA's runtime, its libraries (cuBLAS, cuDNN) and torch on a CPU say; torch has no type for these."""


def ran_out(error: BaseException) -> bool:
    """Returns whether `error` says that memory ran out: Python's, torch's own, or one that its message tells.

    An illegal memory access is none: nothing that is smaller would help.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # by name: torch is slow to load
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in RAN_OUT)
