"""The competitions' metrics, each as one number per row, so that two models can be compared row by row.

A new metric is a function and a row of METRICS, for one that is no mean of rows, too: see `Metric`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SMALLEST = 1.0e-15  # the clip of scikit-learn's and Kaggle's log loss


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns minus the log probability of each true class, (rows,) in nats, from (rows, classes) probabilities."""
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], SMALLEST, 1.0))


def hits(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns 1.0 where the likeliest class is the true one, else 0.0, (rows,), from (rows, classes) probabilities."""
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A competition's score, told as one number per row whose mean it is.

    For a score that is no mean over rows, such as the area under a curve, a row's number is the score plus the row's
    influence on it (Hampel 1974, "The influence curve and its role in robust estimation"): influences have mean zero,
    and standard errors and paired comparisons hold to first order. The numbers belong to the rows that they were
    computed from; some of these rows alone need a call of their own.
    """

    per_row: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """labels (rows,), probabilities (rows, classes) -> (rows,); NaN where the rows have no score."""
    greater_is_better: bool
    wants: str = "mean"
    outcomes: tuple[str, ...] = ("classes", "choice")
    grouped: bool = False

    @property
    def sign(self) -> float:
        """1 where a greater score is better, else -1."""
        return 1.0 if self.greater_is_better else -1.0

    def score(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """Returns the competition's score of (rows, classes) probabilities."""
        return float(self.per_row(labels, probabilities).mean())

    def better(self, first: float, second: float) -> bool:
        """Returns whether the score `first` beats `second`."""
        return first > second if self.greater_is_better else first < second


METRICS = {"log_loss": Metric(log_losses, False), "accuracy": Metric(hits, True)}


def decisive_log_loss(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[int, ...]) -> float:
    """Returns the log loss on the rows whose label is in `classes`, with probabilities renormalised over these classes.

    A coin scores 0.693 with two classes, however many ties the set has.
    """
    rows = np.isin(labels, classes)
    chosen = probabilities[rows][:, list(classes)]
    index = np.searchsorted(np.asarray(classes), labels[rows])
    return float(log_losses(index, chosen / chosen.sum(axis=1, keepdims=True)).mean())


def metric_named(name: str) -> Metric:
    return METRICS[name]
