"""Level-2 nested scores: each candidate is tuned, fitted and calibrated inside outer folds, scored on the one left out.

The scores are honest about the second level only: the OOF columns of the training rows came from base models that had
seen the outer fold. What that hides, only the holdout can show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.competitions.metrics import Metric
from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import Calibration, fit_calibration
from pipeline.ensemble.fitting import fit
from pipeline.ensemble.level1 import Level1
from pipeline.ensemble.stackers import Stacker, predict
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


def fit_calibrated(
    name: str, rows: Second, competition: Competition, threads: int, seed: int
) -> tuple[Stacker, Calibration]:
    """The candidate `name`, and the calibration that its answers to rows it was not fitted on ask for."""
    fitted = fit(name, rows.level1, rows.labels, rows.parts, competition, threads, seed)
    return fitted.model, fit_calibration(rows.labels, fitted.inner, rows.parts, rows.groups, competition)


def nested_predictions(name: str, rows: Second, competition: Competition, threads: int, seed: int) -> np.ndarray:
    """(rows, classes) predictions of candidate `name` for each part, from a fit and a calibration on the others."""
    result = np.empty((len(rows.labels), len(competition.classes)))
    for part in np.unique(rows.parts):
        outside = rows.parts == part
        model, calibration = fit_calibrated(name, rows.take(~outside), competition, threads, seed)
        result[outside] = calibration.apply(predict(model, rows.level1.take(outside), competition))
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
