"""What one fold model is given: rows to learn, what it learns beside them, and rows that it is scored on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.task import Competition


@dataclass(frozen=True)
class Beside:
    """The rows of another competition that a network learns beside its own."""

    competition: Competition
    rows: pl.DataFrame
    left_out: int
    """Rows that are not among them, because a text of theirs stands in the fold or the holdout."""


@dataclass(frozen=True)
class Lessons:
    """What teachers say of the rows of a fold model."""

    ids: pl.Series
    answers: np.ndarray
    """(rows, outputs) float32, at the student's temperature: see pipeline/members/beside/lessons.py."""
    means: np.ndarray
    """(rows, outputs) their mean answer as it is."""
    states: np.ndarray | None
    """(rows, views, width) float32 pooled states, where a student is to have their direction."""

    def of(self, ids: pl.Series) -> np.ndarray:
        """Returns the places of the rows with these ids."""
        places = {each: place for place, each in enumerate(self.ids)}
        return np.array([places[each] for each in ids], dtype=np.int64)


@dataclass(frozen=True)
class Extra:
    """Rows from elsewhere that a fold model learns beside its own; see pipeline/members/beside/learned.py."""

    rows: pl.DataFrame
    """id and the fields."""
    labels: np.ndarray
    """As train.parquet has them: the nearest ones where the answers are soft."""
    statistic: np.ndarray
    """(rows, outputs) what is learned, in the family's statistic."""
    weights: np.ndarray
    """(rows,) what each counts, a row of the fold's own being 1."""
    told: Mapping[str, Mapping[str, int]]
    """Of each source the `rows`, and how many were left out because the teachers are `unsure`."""

    def head(self, count: int) -> Extra:
        """Returns the first `count` rows."""
        rows, labels, statistic = self.rows.head(count), self.labels[:count], self.statistic[:count]
        return Extra(rows, labels, statistic, self.weights[:count], self.told)


@dataclass(frozen=True)
class Split:
    """The rows of one fold model: what it learns from, the fold it is scored on, and the holdout."""

    train: pl.DataFrame
    fold: pl.DataFrame
    holdout: pl.DataFrame
    auxiliary: Mapping[str, Beside] = field(default_factory=dict)
    lessons: Lessons | None = None
    """What the teachers say of `train` and `extra`, of a student."""
    extra: Extra | None = None


def split_rows(rows: pl.DataFrame, folds: pl.DataFrame, fold: int) -> Split:
    """Returns `rows` (Artifacts.train) parted by `folds` (Artifacts.folds), which holds their ids in their order."""
    of = folds["fold"]
    return Split(rows.filter((of != fold) & (of != HOLDOUT)), rows.filter(of == fold), rows.filter(of == HOLDOUT))
