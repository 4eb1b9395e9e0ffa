"""Level-2 nested scores: each candidate is tuned, fitted and calibrated inside outer folds, scored on the one left out.

The scores are honest about the second level only: the OOF columns of the training rows came from base models that had
seen the outer fold. What that hides, only the holdout can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.competitions.metrics import Metric
from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import Calibration, fit_calibration
from pipeline.ensemble.fitting import Common, fit
from pipeline.ensemble.stack_inputs import Level1, build_level1
from pipeline.ensemble.stackers import Stacker, predict
from pipeline.ensemble.table import Table
from pipeline.ensemble.uncertainty import cluster_error


@dataclass(frozen=True)
class Second:
    """What the second level learns from: some rows' level-1 inputs, and all that fitting needs beside them."""

    level1: Level1
    labels: np.ndarray
    parts: np.ndarray
    """(rows,) folds, which tune and calibrate."""
    groups: np.ndarray
    """(rows,) equal where rows share a prompt and so are not independent."""

    def take(self, rows: np.ndarray) -> Second:
        """The rows of a mask."""
        return Second(self.level1.take(rows), self.labels[rows], self.parts[rows], self.groups[rows])

    def members(self, chosen: list[int]) -> Second:
        """The same rows with the chosen members only."""
        return Second(self.level1.members(chosen), self.labels, self.parts, self.groups)


def second_level(table: Table, members: list[str], competition: Competition, with_features: bool, seed: int) -> Second:
    """What stackers learn from: rows that `members` cover, with text features only where LightGBM asks for them."""
    level1 = build_level1([table.probabilities[m] for m in members], table.rows, competition, with_features)
    return Second(level1, table.labels, table.parts(competition, seed), table.groups(competition))


@dataclass(frozen=True)
class Fitted:
    """A stacker that is ready for use."""

    model: Stacker
    calibration: Calibration
    inner: np.ndarray
    """(rows, classes) its answers, not calibrated, to the rows that it learned from, each fitted on other parts."""


def fit_calibrated(
    name: str, rows: Second, competition: Competition, threads: int, seed: int, common: Common | None = None
) -> Fitted:
    """The candidate `name`, and the calibration that its answers to rows it was not fitted on ask for.

    `common` is shared by candidates on the same rows.
    """
    found = fit(name, rows.level1, rows.labels, rows.parts, competition, threads, seed, common)
    calibration = fit_calibration(rows.labels, found.inner, rows.parts, rows.groups, competition)
    return Fitted(found.model, calibration, found.inner)


def nested_predictions(name: str, rows: Second, competition: Competition, threads: int, seed: int) -> np.ndarray:
    """(rows, classes) predictions of candidate `name` for each part, from a fit and a calibration on the others."""
    return nested_candidates((name,), rows, competition, threads, seed)[name]


def nested_candidates(
    names: Sequence[str], rows: Second, competition: Competition, threads: int, seed: int
) -> dict[str, np.ndarray]:
    """Candidate -> its `nested_predictions`; together they take less time than one by one."""
    result = {name: np.empty((len(rows.labels), len(competition.classes))) for name in names}
    for part in np.unique(rows.parts):
        outside, common = rows.parts == part, Common()
        inside, asked = rows.take(~outside), rows.level1.take(outside)
        for name in names:
            fitted = fit_calibrated(name, inside, competition, threads, seed, common)
            result[name][outside] = fitted.calibration.apply(predict(fitted.model, asked, competition))
    return result


def simplest_of_the_best(losses: dict[str, np.ndarray], groups: np.ndarray) -> str:
    """The first candidate (they stand from the simplest on) within one paired standard error of the best.

    `losses` holds one number per row and candidate, lower is better; the error is clustered by `groups` (rows,).
    """
    best = min(losses, key=lambda name: losses[name].mean())
    for name, loss in losses.items():
        if name == best:
            return name
        gap = loss - losses[best]
        if gap.mean() <= cluster_error(gap, groups):
            return name
    return best


def standard_error(metric: Metric, labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the score from its spread over rows, clustered by `groups`."""
    return cluster_error(metric.per_row(labels, probabilities), groups)
