"""The submitted commits as DVC sees them: which params changed from one to the next, and what the metrics said."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError


@contextmanager
def dvc_repository() -> Iterator[Any]:
    """The DVC repository of the working directory. Raises: PodiumError with DVC's own words."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as repository:
            yield repository
    except (DvcException, SCMError) as error:
        raise PodiumError(f"dvc: {' '.join(str(error).split())}") from None


def changed_params(repository: Any, before: str, after: str) -> str:
    """What `dvc params diff BEFORE AFTER` finds in params.yaml, sorted, in one line: `stack.seed 3 -> 4, ...`."""
    found = repository.params.diff(before, after).get("diff", {}).get("params.yaml", {})
    return describe(found)


def describe(changes: dict[str, dict[str, Any]]) -> str:
    """DVC's {key: {"old", "new"}} in words; a member that came or went is one item, not one per setting."""
    items, whole = {}, {}
    for key, change in changes.items():
        parts = key.split(".")
        member = ".".join(parts[:2]) if parts[0] == "members" else ""
        kind = changes.get(f"{member}.kind", {})
        if member and (kind.get("old") is None) != (kind.get("new") is None):
            whole[member] = "new" if kind.get("old") is None else "gone"
        else:
            items[key] = f"{key} {shown(change.get('old'))} → {shown(change.get('new'))}"
    named = {key: f"{key} {what}" for key, what in whole.items()} | items
    return ", ".join(named[key] for key in sorted(named))


def shown(value: Any) -> str:
    """A parameter as it would stand in params.yaml; a dash for one that is not there."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "[" + ", ".join(map(shown, value)) + "]" if isinstance(value, list | tuple) else str(value)


def metrics_of(repository: Any, revisions: list[str]) -> dict[str, dict[str, float | None]]:
    """CV, LB and run time of each revision, as `dvc metrics diff` between neighbours shows them.

    The keys are those of a ledger entry: cv, cv_error, public, private, runtime_seconds.
    """
    found: dict[str, dict[str, float | None]] = {}
    pairs = list(pairwise(revisions)) or [(name, name) for name in revisions]
    for before, after in pairs:
        diff = repository.metrics.diff(before, after, all=True).get("diff", {})
        for revision, side in ((before, "old"), (after, "new")):
            found[revision] = {
                "cv": _value(diff, "metrics/cv.json", "stack.score", side),
                "cv_error": _value(diff, "metrics/cv.json", "stack.standard_error", side),
                "public": _value(diff, "lb.json", "public", side),
                "private": _value(diff, "lb.json", "private", side),
                "runtime_seconds": _value(diff, "lb.json", "runtime_seconds", side),
            }
    return found


def _value(diff: dict[str, Any], file: str, key: str, side: str) -> float | None:
    value = diff.get(str(Path(file)), {}).get(key, {}).get(side)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
