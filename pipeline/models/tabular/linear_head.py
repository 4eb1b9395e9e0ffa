"""Logistic regression on a sparse TF-IDF matrix beside dense text features, each with its own L2 penalty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from pipeline.models.tabular.head_inputs import Inputs

FURTHEST = 5.0
"""Standardised features are cut here, so that one freak text cannot turn a prediction around alone."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class LinearHead:
    """A fitted logistic regression with the scaling of its dense inputs."""

    center: np.ndarray
    """(dense columns,), of the signed logarithms of the features."""
    scale: np.ndarray
    """(dense columns,)"""
    weights: np.ndarray
    """(scores, dense columns + n-grams)"""
    bias: np.ndarray
    """(scores,)"""

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Returns (rows, 1) log odds of the second of two classes, or (rows, classes) logits of more."""
        return np.asarray(_table(inputs, self.center, self.scale) @ self.weights.T + self.bias)


def fit_linear_head(inputs: Inputs, targets: np.ndarray, c: float, features_c: float, odd: bool) -> LinearHead:
    """Fits targets (rows,), 0 to classes - 1 and each of them present.

    `c` and `features_c` are the inverse strengths of the penalties on n-grams and on features. `odd`: the rows come
    with their mirror images, whose inputs have the opposite sign; then there is no intercept and no centring, and the
    answer to a mirrored row is exactly the opposite one.
    """
    logs = _signed_log(inputs.dense)
    center = np.zeros(logs.shape[1]) if odd else logs.mean(axis=0)
    scale = np.sqrt(np.square(logs - center).mean(axis=0))
    scale[scale < 1.0e-9] = 1.0
    # One penalty for all weights: a column that is multiplied by s is penalised s^2 times less.
    strength = features_c if inputs.ngrams is None else c
    larger = np.ones(logs.shape[1] + (0 if inputs.ngrams is None else inputs.ngrams.shape[1]))
    larger[: logs.shape[1]] = np.sqrt(features_c / strength)
    model = LogisticRegression(C=strength, fit_intercept=not odd, max_iter=MAX_ITERATIONS)
    table = _table(inputs, center, scale)
    model.fit(table * larger if inputs.ngrams is None else table @ sparse.diags(larger), targets)
    bias = np.broadcast_to(model.intercept_, len(model.coef_)).astype(np.float64)
    return LinearHead(center, scale, model.coef_ * larger, bias)


def _table(inputs: Inputs, center: np.ndarray, scale: np.ndarray) -> np.ndarray | sparse.csr_matrix:
    """Returns standardised features and n-grams side by side."""
    dense = np.clip((_signed_log(inputs.dense) - center) / scale, -FURTHEST, FURTHEST)
    return dense if inputs.ngrams is None else sparse.hstack([sparse.csr_matrix(dense), inputs.ngrams], format="csr")


def _signed_log(values: np.ndarray) -> np.ndarray:
    """Counts of texts have long tails; this keeps the sign and is odd."""
    return np.sign(values) * np.log1p(np.abs(values.astype(np.float64)))
