"""What the growing page shows: the score of every fold model that is finished, and what is still to come."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.metrics import metric_named
from pipeline.config import Params, load_params
from pipeline.data.folds import group_keys
from pipeline.ensemble.scoring import constant, score
from pipeline.files import read_json, sha256_file
from pipeline.members.fold import fold_score
from pipeline.report.page import environment
from pipeline.stage import SECONDS

LATER = ("probe", "oof", "stack", "diagnostics", "package", "rehearse", "report")
"""Stages after the members' models; they follow from a new one."""


def render_progress(began: float, reload: int | None) -> str:
    """Returns the page of a build that began at `began` (time.time()), as HTML.

    It loads itself anew every `reload` seconds; None is for a build that ended before its report.
    """
    params, artifacts = load_params(), Artifacts()
    prepared, took = read_json(artifacts.competition_file), _took()
    ended = {run: seconds for run, (seconds, end) in took.items() if end >= began}
    members, waiting = _members(params, artifacts, {run: seconds for run, (seconds, _) in took.items()})
    later = [*(f"refit@{name}" for name in params.members if params.refit), *LATER]
    waiting += [(run, took[run][0] if run in took else None) for run in later if run not in ended]
    known = [seconds for _, seconds in waiting if seconds is not None]
    spent = time.time() - began
    pace = spent / sum(ended.values()) if sum(ended.values()) else 1.0  # below 1 where stages run side by side
    competition = artifacts.competition()
    values = {
        "competition": competition,
        "metric": competition.metric.replace("_", " "),
        "higher": metric_named(competition.metric).greater_is_better,
        "rows": prepared["rows"],
        "prior": _prior(artifacts.train_file, artifacts.train_file.stat().st_mtime_ns),
        "folds": params.folds.ids,
        "members": members,
        "waiting": waiting,
        "left": pace * sum(known),
        "unknown": len(waiting) - len(known),
        "spent": spent,
    }
    return environment().get_template("growing.html").render(values, reload=reload) + "\n"


def _took() -> dict[str, tuple[float, float]]:
    """Returns what each stage took when it last ran here, in seconds, and when it ended."""
    return {file.stem: (float(read_json(file)), file.stat().st_mtime) for file in SECONDS.glob("*.json")}


def _members(
    params: Params, artifacts: Artifacts, took: dict[str, float]
) -> tuple[list[dict[str, Any]], list[tuple[str, float | None]]]:
    """Returns a row of the table for each member, and the folds that are to come with the seconds expected.

    A fold that has not been trained here is expected to take as long as the member's others.
    """
    members, waiting = [], list[tuple[str, float | None]]()
    for name in params.members:
        runs = {fold: f"finetune@{name}-{fold}" for fold in params.folds.ids}
        known = [took[run] for run in runs.values() if run in took]
        start, cells = artifacts.start(name), list[str | float | None]()
        for fold, run in runs.items():
            receipt = artifacts.receipt(name, fold)
            made = read_json(receipt) if receipt.is_file() else {}
            if start.is_file() and made.get("start") == sha256_file(start):
                scored = _score(name, fold, receipt.stat().st_mtime_ns) if made["trained"] else "not trained"
                cells.append("collapsed" if (made.get("training") or {}).get("collapsed") else scored)
            else:
                cells.append("to come")
                waiting.append((run, took.get(run, sum(known) / len(known) if known else None)))
        members.append({"name": name, "folds": cells, "seconds": sum(known) if known else None})
    return members, waiting


@lru_cache
def _score(member: str, fold: int, changed: int) -> float:
    """Returns a fold model's score on its fold; `changed` is when its receipt was written."""
    artifacts = Artifacts()
    part = pl.read_parquet(artifacts.oof_part(member, fold))
    rows = part.select("id").join(artifacts.train().collect(), on="id", how="left", maintain_order="left")
    return fold_score(rows, part.drop("id").to_numpy(), artifacts.competition())


@lru_cache
def _prior(train: Path, changed: int) -> float:
    """Returns the score of the best constant answer to the rows that are not held out."""
    artifacts = Artifacts()
    rows, competition = artifacts.seen_rows(), artifacts.competition()
    labels = rows["label"].to_numpy()
    groups = group_keys(rows, competition.kind).rank("dense").to_numpy()
    return score(labels, constant(competition.family.prior(labels), labels, competition), groups, competition)
