"""Members whose training came to nothing: left out of stack and package, loudly, or the end of the build.

A fold model has collapsed where it is no better on its fold than the shares of the classes; training says so in the
fold's receipt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.competitions.task import Competition
from pipeline.ensemble.table import read_holdout, read_oof
from pipeline.errors import PodiumError
from pipeline.evaluation.scores import member_scores
from pipeline.files import read_json


def read_training(artifacts: Path, members: list[str], folds: list[int]) -> dict[str, dict[int, dict[str, Any]]]:
    """Member -> fold -> what its receipt tells about the training; members that keep no such record have none."""
    records: dict[str, dict[int, dict[str, Any]]] = {}
    for name in members:
        for fold in folds:
            training = read_json(artifacts / "receipts" / f"{name}-fold{fold}.json").get("training")
            if training is not None:
                records.setdefault(name, {})[fold] = training
    return records


def collapsed_folds(training: dict[str, dict[int, dict[str, Any]]], on_collapse: str) -> dict[str, list[int]]:
    """Member -> its collapsed folds, for members that have any.

    Raises: PodiumError where there is one and `on_collapse` is `fail`.
    """
    found = {name: [fold for fold, each in folds.items() if each["collapsed"]] for name, folds in training.items()}
    found = {name: folds for name, folds in found.items() if folds}
    if found and on_collapse == "fail":
        name, folds = next(iter(found.items()))
        raise PodiumError(
            f"{name}: fold models {folds} are no better than the prior; change it, or set guard.on_collapse: drop"
        )
    return found


def attempts_told(records: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Of one member's folds: `attempts`, the most that one of them needed; `stopped`, a line for each that the guard
    ended or gave up; `updates`, all steps that were made, as a share of those of runs that succeed at once."""
    each = [(fold, attempt) for fold, record in records.items() for attempt in record["attempts"]]
    planned = sum({(fold, attempt["run"]): attempt["of"] for fold, attempt in each}.values())
    return {
        "attempts": max((attempt["attempt"] + 1 for _, attempt in each), default=1),
        "stopped": [
            f"fold {fold}, attempt {attempt['attempt'] + 1}"
            + (f" of run {attempt['run'] + 1}" if attempt["run"] else "")
            + f" (rate {attempt['rate']:.2g}, warmup {attempt['warmup']:.0%}), {attempt['steps']} of {attempt['of']} "
            f"steps: {attempt['stopped']}"
            for fold, attempt in each
            if attempt["stopped"]
        ],
        "updates": round(sum(attempt["steps"] for _, attempt in each) / max(planned, 1), 4),
    }


def add_training(
    scores: dict[str, Any],
    training: dict[str, dict[int, dict[str, Any]]],
    collapsed: dict[str, list[int]],
    seconds: dict[str, float | None],
    competition: Competition,
    artifacts: Path,
) -> dict[str, Any]:
    """`scores` (of metrics/cv.json) with what training tells of each member, and with the members that are left out."""
    for name, folds in collapsed.items():
        own = read_oof(artifacts, [name], competition).covered_by([name])
        entry = member_scores(own, read_holdout(artifacts, [name], competition), name, competition)
        scores["members"][name] = entry | {"collapsed": len(folds), "seconds": seconds.get(name)}
        reason = f"{len(folds)} of {len(training[name])} fold models are no better than the prior"
        scores.setdefault("dropped", {})[name] = reason
        scores["warnings"].append(f'member "{name}" is LEFT OUT of stack and package: {reason}')
    for name, records in training.items():
        scores["members"][name] |= attempts_told(records)
        fields = next(iter(records.values()))["truncation"]
        scores["members"][name]["truncation"] = {
            field: {
                share: round(sum(each["truncation"][field][share] for each in records.values()) / len(records), 4)
                for share in ("rows", "tokens")
            }
            for field in fields
        }
    return scores
