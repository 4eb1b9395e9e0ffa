"""The competitions' metrics, each as one number per row, so that two models can be compared row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SMALLEST = 1.0e-15  # the clip of scikit-learn's and Kaggle's log loss


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Minus log probability of the true class. labels (rows,), probabilities (rows, classes) -> (rows,) in nats."""
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], SMALLEST, 1.0))


def hits(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """1.0 where the likeliest class is the true one. labels (rows,), probabilities (rows, classes) -> (rows,)."""
    return (probabilities.argmax(axis=1) == labels).astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A score that is the mean of one number per row."""

    per_row: Callable[[np.ndarray, np.ndarray], np.ndarray]
    greater_is_better: bool

    def score(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """The competition's score of (rows, classes) probabilities."""
        return float(self.per_row(labels, probabilities).mean())

    def better(self, first: float, second: float) -> bool:
        """Whether the score `first` beats `second`."""
        return first > second if self.greater_is_better else first < second


METRICS = {"log_loss": Metric(log_losses, False), "accuracy": Metric(hits, True)}


def decisive_log_loss(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[int, ...]) -> float:
    """Log loss on the rows whose label is in `classes`, with the probabilities renormalised over these classes.

    A coin scores 0.693 with two classes, however many ties the set has.
    """
    rows = np.isin(labels, classes)
    chosen = probabilities[rows][:, list(classes)]
    index = np.searchsorted(np.asarray(classes), labels[rows])
    return float(log_losses(index, chosen / chosen.sum(axis=1, keepdims=True)).mean())
