"""Which rows gain most from one more member: predicted from how unsure the present answer is, and how long the row is.

Where an answer p' that knows more is calibrated, going from p to p' lowers the log loss by KL(p' || p) in expectation,
whatever the label turns out to be. That is regressed here; unlike the loss itself it has no noise of labels in it. A
plain "the unsure rows first" would send the rows about which people disagree, and which no model can settle.
"""

from __future__ import annotations

import numpy as np

from pipeline.ensemble.logits import SMALLEST


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy (rows,) of (rows, classes) probabilities, in nats."""
    clipped = np.clip(probabilities, SMALLEST, 1.0)
    return -(clipped * np.log(clipped)).sum(axis=1)


def kl_divergence(better: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Returns the Kullback-Leibler divergence KL(better || present), (rows,) in nats; both are (rows, classes)."""
    better, present = np.clip(better, SMALLEST, 1.0), np.clip(present, SMALLEST, 1.0)
    return (better * (np.log(better) - np.log(present))).sum(axis=1)


def fit_priority(better: np.ndarray, present: np.ndarray, characters: np.ndarray) -> tuple[float, ...]:
    """Returns coefficients for `row_gains`, by least squares on rows that neither answer was fitted on.

    better, present (rows, classes): with and without the member; characters (rows,): length of the row's texts.
    """
    inputs = _inputs(entropy(present), characters)
    return tuple(np.linalg.lstsq(inputs, kl_divergence(better, present), rcond=1.0e-8)[0].tolist())


def row_gains(coefficients: tuple[float, ...], unsure: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Returns the expected gain of each row, (rows,), never negative; equal for all rows without coefficients.

    unsure (rows,): entropy of the present answer, in nats.
    """
    if not coefficients:
        return np.ones(len(unsure))
    return np.maximum(_inputs(unsure, characters) @ np.asarray(coefficients), 1.0e-9)


def _inputs(unsure: np.ndarray, characters: np.ndarray) -> np.ndarray:
    size = np.log1p(characters) / 10.0
    return np.stack([np.ones_like(unsure), unsure, unsure**2, size, size * unsure], axis=1)
