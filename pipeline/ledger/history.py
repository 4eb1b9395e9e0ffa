"""The submitted commits as DVC and git keep them: their ledger, the params that changed, the metrics."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.artifacts import CV_METRICS
from pipeline.errors import PodiumError
from pipeline.imports import ROOT
from pipeline.ledger.git import fetch_contents, file_at, numbered_tags
from pipeline.ledger.ledger import LB, LEDGER, Entry, parse_ledger
from pipeline.stage import stage

SECONDS = 300.0
"""DVC gets so long to compare commits; a hundred of them take half a minute."""


def submitted_commits() -> dict[int, str]:
    """Returns {number: full commit hash} of the tags sub-N. Raises: PodiumError where there is none."""
    if not (tags := numbered_tags("sub")):
        raise PodiumError("no tag sub-N: nothing was submitted from this repository; run `make submit`")
    return tags


@contextmanager
def dvc_repository(wait: bool = False) -> Iterator[Any]:
    """Yields the DVC repository of the working directory; `wait` for others that hold its lock, else 3 seconds.

    Raises: PodiumError with DVC's own words.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with Repo(_wait_for_lock=wait) as repository:
            yield repository
    except (DvcException, SCMError) as error:
        raise PodiumError(f"dvc: {' '.join(str(error).split())}") from None
    finally:
        logger.setLevel(level)


def differences(what: str, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Returns what `dvc params diff BEFORE AFTER` or `dvc metrics diff` (`what`) finds between two commits, by file.

    In a process of its own: where this clone lacks a file of a commit, DVC waits for ever, and cannot be interrupted.

    Raises: PodiumError with git's or DVC's own words, or where there is no answer.
    """
    if not pairs:
        return []
    fetch_contents(sorted({revision for pair in pairs for revision in pair}))
    command = [sys.executable, "-m", __name__, what]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment["PYTHONIOENCODING"] = "utf-8"
    try:
        done = subprocess.run(
            command, input=json.dumps(pairs), env=environment, capture_output=True, encoding="utf-8", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        commits = ", ".join(sorted({revision for pair in pairs for revision in pair}))
        raise PodiumError(f"dvc {what} diff: no answer for {SECONDS:g} s about {commits}; stopped") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PodiumError(said[-1].removeprefix("error: "))
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def changed_params(pairs: list[tuple[str, str]]) -> list[str]:
    """Returns for each pair of commits what differs in params.yaml, in one line: `stack.seed 3 → 4, ...`."""
    return [describe_changes(each.get("params.yaml", {})) for each in differences("params", pairs)]


def describe_changes(changes: dict[str, dict[str, Any]]) -> str:
    """Returns DVC's {key: {"old", "new"}} in words; a member that came or went is one item, not one per setting."""
    named = {}
    for key, change in changes.items():
        parts = key.split(".")
        member = ".".join(parts[:2]) if parts[0] == "members" else ""
        kind = changes.get(f"{member}.kind", {})
        if member and (kind.get("old") is None) != (kind.get("new") is None):
            named[member] = f"{member} {'new' if kind.get('old') is None else 'gone'}"
        else:
            named[key] = f"{key} {value_text(change.get('old'))} → {value_text(change.get('new'))}"
    return ", ".join(named[key] for key in sorted(named))


def value_text(value: Any) -> str:
    """Returns a parameter as it would stand in params.yaml; a dash for one that is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "[" + ", ".join(map(value_text, value)) + "]" if isinstance(value, list | tuple) else str(value)


def metrics_of(revisions: list[str]) -> dict[str, dict[str, float | None]]:
    """Returns CV, LB and run time of each revision, as `dvc metrics diff` between neighbours shows them.

    The keys are those of a ledger entry: cv, cv_error, public, private, runtime_seconds.
    """
    found: dict[str, dict[str, float | None]] = {}
    pairs = list(pairwise(revisions)) or [(name, name) for name in revisions]
    for pair, diff in zip(pairs, differences("metrics", pairs), strict=True):
        for revision, side in zip(pair, ("old", "new"), strict=True):
            places = {"cv": (CV_METRICS, "stack.score"), "cv_error": (CV_METRICS, "stack.standard_error")}
            places |= {key: (LB, key) for key in ("public", "private", "runtime_seconds")}
            found[revision] = {key: _value(diff, *place, side) for key, place in places.items()}
    return found


def _value(diff: dict[str, Any], file: Path, key: str, side: str) -> float | None:
    value = diff.get(str(file), {}).get(key, {}).get(side)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_ledger(revision: str) -> list[Entry]:
    """Returns the ledger of a commit; empty where it has none."""
    text = file_at(revision, str(LEDGER))
    return parse_ledger(text) if text else []


if __name__ == "__main__":
    with stage("history", keep_seconds=False), dvc_repository() as repository:
        asked = {"params": repository.params.diff, "metrics": partial(repository.metrics.diff, all=True)}[sys.argv[1]]
        print(json.dumps([asked(*pair).get("diff", {}) for pair in json.load(sys.stdin)]))
