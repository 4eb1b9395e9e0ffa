"""The last step from means to labels, where a metric scores labels: thresholds, cut points, weights of the classes.

They are fitted on answers to rows that taught the model nothing, and count as a part of it: whoever scores a decision
fits it on other rows than it decides. Needs NumPy alone, because the kernel decides too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.competitions.metrics import Metric, metric_named
from pipeline.competitions.task import Competition

GRID = 25
"""Places at which a threshold is tried, between the quantiles of what it parts."""
ROUNDS = 3
"""How often all thresholds are gone through; a further round has not been seen to move one."""
LOG_WEIGHTS = np.linspace(-1.5, 1.5, GRID)
"""What is added to the log probability of a class."""


@dataclass(frozen=True)
class Decision:
    """How means become labels. Without `values` it is the likeliest class, the probability 1/2, the nearest score."""

    values: tuple[float, ...] = ()
    """Of classes: what is added to each log probability; of labels: a threshold each; of scores: the cut points
    between them, on the expected score."""

    def apply(self, means: np.ndarray, competition: Competition) -> np.ndarray:
        """Returns labels as train.parquet has them: class indices (rows,), or (rows, labels) of 0 and 1 or scores.

        Of numbers, which are not decided, it returns the means. NaN rows give the lowest class or score.
        """
        outcome, family, values = competition.outcome, competition.family, np.asarray(self.values)
        if outcome in ("classes", "choice"):
            known = np.nan_to_num(means)
            return (np.log(np.maximum(known, 1.0e-15)) + values if self.values else known).argmax(axis=1)
        if outcome == "labels":
            return (np.nan_to_num(means) >= (values if self.values else 0.5)).astype(np.float64)
        if outcome == "ordered":
            low = competition.scores[0]
            expected = np.nan_to_num(family.expected(means)[:, 0], nan=low)
            cuts = values if self.values else low + 0.5 + np.arange(len(competition.outputs))
            return (low + np.searchsorted(cuts, expected, side="right")).astype(np.float64)[:, None]
        return means


PLAIN = Decision()


def fit_decision(labels: np.ndarray, means: np.ndarray, competition: Competition) -> Decision:
    """Returns the decision with the best score of the competition's metric on these rows, by coordinate ascent.

    Where the metric scores means, or the plain decision is the best by construction (accuracy), that is the plain one.
    """
    metric = metric_named(competition.metric)
    if metric.wants != "decided" or competition.outcome == "numbers" or not len(labels):
        return PLAIN
    if competition.metric == "accuracy" and competition.outcome != "ordered":
        return PLAIN
    if competition.outcome in ("classes", "choice"):
        if competition.outcome == "choice":
            return PLAIN  # no option is unlike another
        start = np.zeros(len(competition.outputs))
        return _ascent(start, lambda place, values: LOG_WEIGHTS, metric, labels, means, competition)
    if competition.outcome == "labels":
        quantiles = np.linspace(0.0, 1.0, 4 * GRID + 1)[1:-1]
        grid = [np.unique(np.quantile(column[np.isfinite(column)], quantiles)) for column in means.T]
        start = np.full(len(grid), 0.5)
        return _ascent(start, lambda place, values: grid[place], metric, labels, means, competition)
    expected = competition.family.expected(means)[:, 0]
    low = competition.scores[0]
    # Where as many rows lie below each cut as have a score below it: a good place to begin from.
    shares = [(labels[:, 0] <= low + step).mean() for step in range(len(competition.outputs))]
    start = np.quantile(expected, shares)

    def between(place: int, values: np.ndarray) -> np.ndarray:
        floor = values[place - 1] if place else expected.min() - 1.0e-9
        ceiling = values[place + 1] if place + 1 < len(values) else expected.max() + 1.0e-9
        inside = expected[(expected >= floor) & (expected <= ceiling)]
        return np.unique(np.quantile(inside, np.linspace(0.0, 1.0, GRID))) if len(inside) else values[place : place + 1]

    return _ascent(start, between, metric, labels, means, competition)


def _ascent(
    start: np.ndarray,
    tried: Callable[[int, np.ndarray], np.ndarray],
    metric: Metric,
    labels: np.ndarray,
    means: np.ndarray,
    competition: Competition,
) -> Decision:
    def score(values: np.ndarray) -> float:
        found = metric.score(labels, Decision(tuple(values.tolist())).apply(means, competition))
        return metric.sign * found if np.isfinite(found) else -np.inf

    plain = metric.sign * metric.score(labels, PLAIN.apply(means, competition))
    values, best = start.astype(np.float64), score(start)
    for _ in range(ROUNDS):
        before = best
        for place in range(len(values)):
            for value in tried(place, values):
                changed = values.copy()
                changed[place] = value
                if (found := score(changed)) > best:
                    values, best = changed, found
        if best <= before:
            break
    return Decision(tuple(values.tolist())) if best > plain or not np.isfinite(plain) else PLAIN
