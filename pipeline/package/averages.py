"""One more model for the package: a network's fold models averaged into one, where that pays.

It stands for all K of them in one pass, so that it is asked first. Whether it pays tells the holdout, which none of
them has seen: where the average loses less there than a fold model does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.family import average
from pipeline.errors import PodiumError
from pipeline.members.average import answers_of_average, averageable
from pipeline.members.refit import PARITY_ROWS
from pipeline.settings.member import MemberSettings


@dataclass(frozen=True)
class Averaged:
    """A model that is worth its place."""

    share: float
    """How far one pass of it is, in loss, on the way from one fold model (0) to the mean of all their answers (1)."""
    answers: pl.DataFrame
    """id and one Float64 column per output: what it says of some rows, for the parity check."""


def averaged(
    name: str, settings: MemberSettings, folds: Iterable[int], artifacts: Artifacts, target: Path
) -> Averaged | None:
    """Writes `target`, the average of a member's fold models, where it loses less than one of them; says what it found.

    Returns None, and leaves no `target`, where it loses more, or where they cannot be averaged.
    """
    try:
        folders = averageable(name, settings, folds, artifacts)
    except PodiumError as reason:
        print(f"package: {name}: no average of its fold models: {str(reason).removeprefix('MEMBER: ')}", flush=True)
        return None
    rows, fold_of, competition = artifacts.train().collect(), artifacts.folds()["fold"], artifacts.competition()
    held, learned = rows.filter(fold_of == HOLDOUT), rows.filter(fold_of != HOLDOUT)
    parts = [
        pl.read_parquet(artifacts.holdout_part(name, fold)).select(competition.outputs).to_numpy() for fold in folders
    ]
    answers = answers_of_average(list(folders.values()), held, learned, artifacts, target)

    def loss(means: np.ndarray) -> float:
        return float(competition.family.losses(held["label"].to_numpy(), means).mean())

    one, found = float(np.mean([loss(each) for each in parts])), loss(answers)
    all_of_them = loss(average(competition.family, parts))
    print(
        f"package: {name}: on the holdout the average of {len(parts)} fold models loses {found:.4f}, one of them "
        f"{one:.4f}, the mean of their answers {all_of_them:.4f}: {'asked first' if pays(found, one) else 'left out'}",
        flush=True,
    )
    if not pays(found, one):
        shutil.rmtree(target)
        return None
    share = min(1.0, (one - found) / (one - all_of_them)) if all_of_them < one else 1.0
    columns = [pl.Series(output, answers[:PARITY_ROWS, c]) for c, output in enumerate(competition.outputs)]
    return Averaged(share, held.head(PARITY_ROWS).select("id").with_columns(columns))


def pays(average: float, fold_model: float) -> bool:
    """Returns whether a model with the first of these losses is worth its place beside models with the second."""
    return average < fold_model
