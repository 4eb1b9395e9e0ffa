"""The submitted commits as DVC and git keep them: their ledger, the params that changed, the metrics."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.artifacts import CV_METRICS
from pipeline.errors import PodiumError
from pipeline.ledger.git import file_at, numbered_tags
from pipeline.ledger.ledger import LB, LEDGER, Entry, parse_ledger


def submitted_commits() -> dict[int, str]:
    """Returns {number: full commit hash} of the tags sub-N. Raises: PodiumError where there is none."""
    if not (tags := numbered_tags("sub")):
        raise PodiumError("no tag sub-N: nothing was submitted from this repository; run `make submit`")
    return tags


@contextmanager
def dvc_repository() -> Iterator[Any]:
    """Yields the DVC repository of the working directory. Raises: PodiumError with DVC's own words."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with Repo() as repository:
            yield repository
    except (DvcException, SCMError) as error:
        raise PodiumError(f"dvc: {' '.join(str(error).split())}") from None
    finally:
        logger.setLevel(level)


def changed_params(repository: Any, before: str, after: str) -> str:
    """Returns what `dvc params diff BEFORE AFTER` finds in params.yaml, in one line: `stack.seed 3 → 4, ...`."""
    return describe_changes(repository.params.diff(before, after).get("diff", {}).get("params.yaml", {}))


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


def metrics_of(repository: Any, revisions: list[str]) -> dict[str, dict[str, float | None]]:
    """Returns CV, LB and run time of each revision, as `dvc metrics diff` between neighbours shows them.

    The keys are those of a ledger entry: cv, cv_error, public, private, runtime_seconds.
    """
    found: dict[str, dict[str, float | None]] = {}
    for before, after in list(pairwise(revisions)) or [(name, name) for name in revisions]:
        diff = repository.metrics.diff(before, after, all=True).get("diff", {})
        for revision, side in ((before, "old"), (after, "new")):
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
