"""Builds whatever is stale, after a look at the plan: what `make repro` does. Where nothing is, it says so and ends.

python -m pipeline.repro                         # the settings as they are
python -m pipeline.repro cpu path/to/data 1 4    # PRESET, DATA, REFIT and JOBS of `make repro`; see pipeline/preset.py

With more than one job, or a cluster at RAY_ADDRESS, pipeline.jobs runs what is stale side by side first, and DVC then
finds it done.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import STOPPED, UNDER_REPRO, PodiumError, say_stopped, stop_in_one_line
from pipeline.files import already, check_watched, exclusive, read_json
from pipeline.report.growing import GrowingPage
from pipeline.stage import stage

if TYPE_CHECKING:
    from pipeline.config import Params

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


def nothing_stale(params: Params) -> bool:
    """Returns whether DVC would run no stage. Where it cannot even say so, the check of the plan names the fault."""
    from pipeline.ledger.history import dvc_repository

    try:
        for folder in params.watched:
            check_watched(folder)
        with dvc_repository() as repository:
            return not repository.status()
    except (PodiumError, OSError, ValueError):
        return False


def jobs_of(value: str, params: Params) -> int:
    """Returns how many stages may run at a time: JOBS on the command line of make, or what this machine feeds.

    Raises: PodiumError for anything but a whole number from 1 on.
    """
    from pipeline.artifacts import Artifacts
    from pipeline.models.backbones.foresight import foreseen
    from pipeline.resources import places

    if value:
        if not value.isdecimal() or not int(value):
            raise PodiumError(f'JOBS: expected a whole number from 1 on, found "{value}"')
        return int(value)
    return places(params, {name: foreseen(name, each, Artifacts()) for name, each in params.backbones.items()})


def run_side_by_side(jobs: int, params: Params) -> int:
    """Runs what is stale, several stages at a time; returns 0, or 2 after it has said what failed."""
    from pipeline.jobs.build import build_side_by_side

    failed, left = build_side_by_side(jobs, params)
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    if left:
        print(f"not run: {', '.join(left)}", file=sys.stderr)
    return 2 if failed else 0


def build(preset: str = "", data: str = "", refit: str = "", jobs: str = "1") -> int:
    """Lays preset, data folder and refit over params.yaml, checks the plan, and runs what is stale.

    Returns DVC's exit code, STOPPED, or 2 after an error that was said. Raises: PodiumError where another build is
    running, or the plan cannot be.
    """
    from pipeline.config import load_params  # later than stage(): what is imported here takes a second, in which
    from pipeline.preset import apply_preset, refit_flag  # Ctrl-C may come

    with exclusive(LOCK, WHERE, DOES):
        refuse_running_dvc()
        if preset or data or refit:
            apply_preset(preset, data, refit_flag(refit))
        # A misspelt key, of which DVC need not know, and a wrong JOBS are errors where nothing is stale, too.
        params = load_params()
        asked = jobs_of(jobs, params) if jobs else 0
        if nothing_stale(params):
            print("Data and pipelines are up to date.")
            say_sources(params)
            return 0
        from pipeline.check import run_check

        run_check()
        places = asked or jobs_of(jobs, params)
        with GrowingPage() as page:
            side_by_side = places > 1 or os.environ.get("RAY_ADDRESS")
            code = (run_side_by_side(places, params) if side_by_side else 0) or run_dvc()
            page.finished = code == 0
        if code == 0:
            say_sources(params)
        return code


def say_sources(params: Params) -> None:
    """Prints what rows from elsewhere have brought to each member that learns some, as far as that was measured."""
    from pipeline.artifacts import Artifacts
    from pipeline.report.sources import brought, read_measured

    artifacts = Artifacts()
    files = [
        artifacts.receipt(name, fold)
        for name, each in params.members.items()
        if each.extra
        for fold in params.folds.ids
    ]
    for each in brought([read_json(file) for file in files if file.is_file()], read_measured()):
        print(each.line())


if __name__ == "__main__":
    stop_in_one_line()
    with stage("repro"):
        code = build(*sys.argv[1:])
        if code:
            sys.exit(code)
