"""How answers are scored in the competition's own metric: means as they are, labels as other rows would decide them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.competitions.decision import Decision, fit_decision
from pipeline.competitions.metrics import metric_named
from pipeline.competitions.task import Competition


@dataclass(frozen=True)
class Answers:
    """What somebody says about some rows."""

    means: np.ndarray
    """(rows, outputs)"""
    decided: np.ndarray
    """Labels as train.parquet has them, (rows,) or (rows, labels); of numbers the means again."""

    def take(self, rows: np.ndarray) -> Answers:
        """Returns the rows of a mask."""
        return Answers(self.means[rows], self.decided[rows])


def crossed(labels: np.ndarray, means: np.ndarray, parts: np.ndarray, competition: Competition) -> Answers:
    """Returns (rows, outputs) means with their labels, those of each of `parts` (rows,) decided by the other parts."""
    decided = Decision().apply(means, competition)
    if metric_named(competition.metric).wants == "decided":
        for part in np.unique(parts):
            outside, inside = parts == part, parts != part
            decision = fit_decision(labels[inside], means[inside], competition)
            decided[outside] = decision.apply(means[outside], competition)
    return Answers(means, decided)


def constant(prior: np.ndarray, labels: np.ndarray, competition: Competition) -> Answers:
    """Returns the best constant predictor for `labels`: the prior (outputs,), decided as suits them best."""
    means = np.tile(prior, (len(labels), 1))
    return Answers(means, fit_decision(labels, means, competition).apply(means, competition))


def row_scores(labels: np.ndarray, answers: Answers, groups: np.ndarray, competition: Competition) -> np.ndarray:
    """Returns the metric's number per row, (rows,); `groups` (rows,) are those of the rows' competition."""
    metric = metric_named(competition.metric)
    given = answers.decided if metric.wants == "decided" else competition.family.expected(answers.means)
    return metric.per_row(labels, given, groups) if metric.grouped else metric.per_row(labels, given)


def score(labels: np.ndarray, answers: Answers, groups: np.ndarray, competition: Competition) -> float:
    """Returns the competition's score of the answers; NaN where the metric has none for these rows."""
    return float(row_scores(labels, answers, groups, competition).mean())
