"""Which rows gain most from one more member: predicted from how unsure the present answer is, and how long the row is.

Where an answer p' that knows more is calibrated, going from p to p' lowers the loss by their divergence (for classes,
KL(p' || p)) in expectation, whatever the label turns out to be. That is regressed here; unlike the loss itself it has
no noise of labels in it. A plain "the unsure rows first" would send the rows about which people disagree, and which no
model can settle.
"""

from __future__ import annotations

import numpy as np

from pipeline.competitions.family import Family


def fit_priority(better: np.ndarray, present: np.ndarray, characters: np.ndarray, family: Family) -> tuple[float, ...]:
    """Returns coefficients for `row_gains`, by least squares on rows that neither answer was fitted on.

    better, present (rows, outputs): with and without the member; characters (rows,): length of the row's texts.
    """
    inputs = _inputs(family.uncertainty(present), characters)
    return tuple(np.linalg.lstsq(inputs, family.divergence(better, present), rcond=1.0e-8)[0].tolist())


def row_gains(coefficients: tuple[float, ...], unsure: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Returns the expected gain of each row, (rows,), never negative; equal for all rows without coefficients.

    unsure (rows,): how unsure the present answer is, in nats (for classes, its entropy).
    """
    if not coefficients:
        return np.ones(len(unsure))
    return np.maximum(_inputs(unsure, characters) @ np.asarray(coefficients), 1.0e-9)


def _inputs(unsure: np.ndarray, characters: np.ndarray) -> np.ndarray:
    size = np.log1p(characters) / 10.0
    return np.stack([np.ones_like(unsure), unsure, unsure**2, size, size * unsure], axis=1)
