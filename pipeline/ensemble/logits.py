"""Between probabilities and the centred logits on which members are averaged and stacked."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

SMALLEST = 1.0e-6
"""Probabilities below this are equal to a stacker; it keeps one over-sure member from outvoting all others."""


def to_logits(probabilities: np.ndarray) -> np.ndarray:
    """Returns the log of (rows, classes) probabilities minus its mean per row; NaN rows stay NaN."""
    logs = np.log(np.clip(probabilities, SMALLEST, 1.0))
    return logs - logs.mean(axis=-1, keepdims=True)


def from_logits(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of (rows, classes) logits; they sum to 1 per row."""
    return softmax(logits, axis=-1)


def geometric_mean(parts: list[np.ndarray]) -> np.ndarray:
    """Returns the average of fold models, by the mean of their logits, each (rows, classes) probabilities."""
    return from_logits(np.mean([to_logits(part) for part in parts], axis=0))
