"""What every stage script does around its one call: options, clock, and errors as one line with exit code 2."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import STOPPED, PodiumError, say_stopped
from pipeline.files import read_json, write_json

SECONDS = Path("work/seconds")
"""One small file per stage run; outside DVC, so that a measured time never makes another stage stale."""


def options(doc: str, **flags: dict[str, Any]) -> argparse.Namespace:
    """Returns a script's options; `flags` holds what argparse's add_argument takes for each (dry_run is --dry-run)."""
    escape_console()
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, settings in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    return parser.parse_args()


@contextmanager
def stage(name: str, keep_seconds: bool = True) -> Iterator[None]:
    """Runs the body of the stage `name` (`folds`, `finetune@lgb-0`), and keeps how long it took.

    A PodiumError or a full disk ends the process with one line on stderr and exit code 2, Ctrl-C with one line and 130;
    with PODIUM_DEBUG=1 the traceback is shown. What a console cannot encode is escaped.
    """
    escape_console()
    started = time.monotonic()
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get("PODIUM_DEBUG") == "1":
            raise
        say_stopped(in_pipeline=keep_seconds)
        raise SystemExit(STOPPED) from None
    except Exception as error:
        line = one_line(error)
        if line is None or os.environ.get("PODIUM_DEBUG") == "1":
            raise
        print(f"error: {line}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    if keep_seconds:
        write_json(SECONDS / f"{name}.json", round(time.monotonic() - started, 3))


def escape_console() -> None:
    """Lets stdout and stderr escape what their encoding cannot say: no sentence is worth a failed stage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def seconds_of(prefix: str) -> float | None:
    """What the stages whose names start with `prefix` took here when they last ran; None where none has run here."""
    kept = [float(read_json(file)) for file in sorted(SECONDS.glob(f"{prefix}*.json"))]
    return round(sum(kept), 3) if kept else None


def one_line(error: Exception) -> str | None:
    """The user's line for an error that the user can mend, None for a defect of ours."""
    if isinstance(error, PodiumError):
        return str(error)
    # Polars reports a full disk in words only.
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return f"the disk is full: {' '.join(str(error).split())}; free some space (`make prune`) and run again"
    return None
