"""One temperature, learned on the holdout: how much surer or less sure the average of all fold models should be.

A stacker learns from the out-of-fold predictions of single fold models, but in the kernel it is fed the average of all
of them, which is a little better and less spread. Only rows that no member has seen can show the difference.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from pipeline.competitions.metrics import log_losses
from pipeline.ensemble.logits import tempered

BOUNDS = (0.5, 2.0)
"""A temperature outside says that something else is wrong; unbounded ones have been seen to invert a model."""


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature with the least log loss on (rows, classes) probabilities, or 1.0.

    It is kept only where it gains more than one paired standard error on the rows that it was fitted on.
    """
    plain = log_losses(labels, probabilities)
    found = minimize_scalar(
        lambda log_t: log_losses(labels, tempered(probabilities, float(np.exp(log_t)))).mean(),
        bounds=tuple(np.log(BOUNDS)),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    gain = plain - log_losses(labels, tempered(probabilities, temperature))
    return temperature if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) else 1.0


def cross_fitted(labels: np.ndarray, probabilities: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Probabilities of each half (`halves` is 0 or 1 per row) under the temperature learned on the other half."""
    result = probabilities.copy()
    for half in (0, 1):
        rows = halves == half
        if rows.any() and (~rows).sum() > 1:
            result[rows] = tempered(probabilities[rows], fit_temperature(labels[~rows], probabilities[~rows]))
    return result
