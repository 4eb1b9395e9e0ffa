"""Builds whatever is stale, after a look at the plan: what `make repro` does.

python -m pipeline.repro                         # the settings as they are
python -m pipeline.repro cpu path/to/data 1      # PRESET, DATA and REFIT of `make repro`; pipeline/preset.py says more
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
from pathlib import Path

from pipeline.errors import STOPPED, UNDER_REPRO, PodiumError, say_stopped, stop_in_one_line
from pipeline.files import already, exclusive
from pipeline.report.growing import GrowingPage
from pipeline.stage import stage

LOCK = Path("work/repro.lock")
DVC_LOCK, DVC_HOLDERS = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")
"""What DVC holds while it looks at the stages, and while it runs one."""
WHERE, DOES = "this folder", "is building here"


BY_SIGNAL = tuple(f", exited with {code}" for code in (STOPPED, -signal.SIGINT))
"""How DVC ends its sentence on a stage that a Ctrl-C ended: dash, unlike bash, ends by the signal itself."""


class Interrupted(logging.Filter):
    """Leaves out what DVC says of a Ctrl-C: one line is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        while error is not None:
            if isinstance(error, KeyboardInterrupt) or str(error).endswith(BY_SIGNAL):
                self.seen = True
                return False
            error = error.__cause__
        return True


def refuse_running_dvc() -> None:
    """Raises PodiumError where a DVC command that was not begun by this module works in this folder."""
    holders = []
    if DVC_HOLDERS.is_file():
        held = json.loads(DVC_HOLDERS.read_text(encoding="utf-8") or "{}")
        readers = [each for several in held.get("read", {}).values() for each in several]
        holders = [(DVC_HOLDERS, each["pid"]) for each in (*held.get("write", {}).values(), *readers) if each]
    if DVC_LOCK.is_file():
        with DVC_LOCK.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holders.append((DVC_LOCK, int(lock.read() or 0)))
    for file, holder in holders:
        if Path(f"/proc/{holder}").exists():  # of one that was killed DVC keeps the number
            raise PodiumError(already(WHERE, holder, DOES, file.stat().st_mtime))


def run_dvc() -> int:
    """Runs `dvc repro` in this process; returns its exit code, or STOPPED."""
    from dvc.cli import main

    interrupted = Interrupted()
    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(interrupted)
    os.environ[UNDER_REPRO] = "1"
    try:
        code = int(main(["repro"]))
    finally:
        del os.environ[UNDER_REPRO]
    if interrupted.seen:
        say_stopped()
    return STOPPED if interrupted.seen else code


def build(preset: str = "", data: str = "", refit: str = "") -> int:
    """Lays preset, data folder and refit over params.yaml, checks the plan, and runs what is stale.

    Returns DVC's exit code, or STOPPED. Raises: PodiumError where another build is running, or the plan cannot be.
    """
    from pipeline.check import run_check  # later than stage(): both take a second, in which Ctrl-C may come
    from pipeline.preset import apply_preset, refit_flag

    with exclusive(LOCK, WHERE, DOES):
        refuse_running_dvc()
        if preset or data or refit:
            apply_preset(preset, data, refit_flag(refit))
        run_check()
        with GrowingPage() as page:
            code = run_dvc()
            page.finished = code == 0
        return code


if __name__ == "__main__":
    stop_in_one_line()
    with stage("repro"):
        code = build(*sys.argv[1:])
        if code:
            sys.exit(code)
