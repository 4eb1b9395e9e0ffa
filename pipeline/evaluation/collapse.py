"""Members whose training came to nothing: left out of stack and package, loudly, or the end of the build.

A fold model has collapsed where it is no better on its fold than the shares of the classes; training says so in the
fold's receipt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.artifacts import Artifacts
from pipeline.errors import PodiumError
from pipeline.files import read_json

Records = dict[int, dict[str, Any]]
"""Fold -> what its receipt tells about the training; see pipeline/members/finetune.py."""


def read_training(artifacts: Artifacts, members: list[str], folds: Iterable[int]) -> dict[str, Records]:
    """Returns the records of each member; none for a member that keeps no such record."""
    receipts = {name: {fold: read_json(artifacts.receipt(name, fold)) for fold in folds} for name in members}
    return {
        name: {fold: receipt["training"] for fold, receipt in each.items() if receipt.get("training") is not None}
        for name, each in receipts.items()
    }


def collapsed_folds(training: dict[str, Records], on_collapse: str) -> dict[str, list[int]]:
    """Returns member -> its collapsed folds, for members that have any.

    Raises: PodiumError where there is one and `on_collapse` is `fail`.
    """
    each = {name: [fold for fold, one in records.items() if one["collapsed"]] for name, records in training.items()}
    found = {name: folds for name, folds in each.items() if folds}
    if found and on_collapse == "fail":
        name, folds = next(iter(found.items()))
        raise PodiumError(
            f"{name}: fold models {folds} are no better than the prior; change it, or set guard.on_collapse: drop"
        )
    return found


def most_attempts(records: Records) -> int:
    """Returns the most attempts that one run of a member's fold models needed; 1 without records."""
    return max((attempt["attempt"] + 1 for record in records.values() for attempt in record["attempts"]), default=1)


def stopped_attempts(records: Records) -> list[str]:
    """Returns a line for each attempt that the guard ended or gave up."""
    return [
        f"fold {fold}, attempt {attempt['attempt'] + 1}"
        + (f" of run {attempt['run'] + 1}" if attempt["run"] else "")
        + f" (rate {attempt['rate']:.2g}, warmup {attempt['warmup']:.0%}), {attempt['steps']} of {attempt['of']} "
        f"steps: {attempt['stopped']}"
        for fold, record in records.items()
        for attempt in record["attempts"]
        if attempt["stopped"]
    ]


def share_of_updates(records: Records) -> float:
    """Returns all steps that were made, as a share of those of runs that succeed at once."""
    each = [(fold, attempt) for fold, record in records.items() for attempt in record["attempts"]]
    planned = sum({(fold, attempt["run"]): attempt["of"] for fold, attempt in each}.values())
    return round(sum(attempt["steps"] for _, attempt in each) / max(planned, 1), 4)


def mean_truncation(records: Records) -> dict[str, dict[str, float]]:
    """Returns field -> `rows` and `tokens`, the shares that were cut, averaged over the folds."""
    shares = [record["truncation"] for record in records.values()]
    return {
        field: {kind: round(sum(each[field][kind] for each in shares) / len(shares), 4) for kind in ("rows", "tokens")}
        for field in shares[0]
    }
