"""Level-2 nested scores: every candidate is tuned and fitted inside outer folds and scored on the fold left out.

The scores are honest about the second level only: the OOF columns of the training rows came from base models that had
seen the outer fold. What that hides, only the holdout can show.
"""

from __future__ import annotations

import numpy as np

from pipeline.competitions.metrics import Metric
from pipeline.competitions.task import Competition
from pipeline.ensemble.level1 import Level1
from pipeline.ensemble.stackers import fit, predict


def nested_predictions(
    name: str, level1: Level1, labels: np.ndarray, parts: np.ndarray, competition: Competition, threads: int, seed: int
) -> np.ndarray:
    """(rows, classes) predictions of candidate `name` for each outer part, from a fit on the other parts."""
    result = np.empty((len(labels), len(competition.classes)))
    for part in np.unique(parts):
        inside, outside = parts != part, parts == part
        fitted = fit(name, level1.take(inside), labels[inside], parts[inside], competition, threads, seed)
        result[outside] = predict(fitted, level1.take(outside), competition)
    return result


def simplest_of_the_best(losses: dict[str, np.ndarray]) -> str:
    """The first candidate (they stand from the simplest on) within one paired standard error of the best.

    `losses` holds one number per row and candidate, lower is better.
    """
    best = min(losses, key=lambda name: losses[name].mean())
    for name, loss in losses.items():
        if name == best:
            return name
        gap = loss - losses[best]
        if gap.mean() <= gap.std(ddof=1) / np.sqrt(len(gap)):
            return name
    return best


def standard_error(metric: Metric, labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Standard error of the score, from its spread over rows."""
    values = metric.per_row(labels, probabilities)
    return float(values.std(ddof=1) / np.sqrt(len(values)))
