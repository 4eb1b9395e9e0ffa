"""Linear models on a sparse TF-IDF matrix beside dense text features, each with its own L2 penalty.

Logistic regression for classes and shares, a softmax over a row's options, ridge regression for numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge

from pipeline.competitions.family import Family
from pipeline.models.tabular.head_inputs import Inputs

FURTHEST = 5.0
"""Standardised features are cut here, so that one freak text cannot turn a prediction around alone."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class LinearHead:
    """A fitted linear model with the scaling of its dense inputs."""

    center: np.ndarray
    """(dense columns,), of the signed logarithms of the features."""
    scale: np.ndarray
    """(dense columns,)"""
    weights: np.ndarray
    """(scores, dense columns + n-grams)"""
    bias: np.ndarray
    """(scores,)"""

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Returns (rows, 1) log odds, scores or numbers, or (rows, classes) logits of more than two classes."""
        return np.asarray(_table(inputs, self.center, self.scale) @ self.weights.T + self.bias)


def fit_linear_head(
    inputs: Inputs,
    targets: np.ndarray,
    family: Family,
    c: float,
    features_c: float,
    odd: bool = False,
    weights: np.ndarray | None = None,
) -> LinearHead:
    """Fits targets (rows,): classes, 0 and up, each of them present; shares from 0 to 1; standardised numbers; or 1 for
    the option that is the answer and 0 for the others, where the rows are those of the first option, of the second ...

    `c` and `features_c` are the inverse strengths of the penalties on n-grams and on features: the loss in nats counts
    that many times. `odd`: the rows come with their mirror images, whose inputs have the opposite sign; then there is
    no intercept and no centring, and the answer to a mirrored row is exactly the opposite one. `weights` (rows,): how
    often each row's loss counts.
    """
    logs = _signed_log(inputs.dense)
    center = np.zeros(logs.shape[1]) if odd else logs.mean(axis=0)
    scale = np.sqrt(np.square(logs - center).mean(axis=0))
    scale[scale < 1.0e-9] = 1.0
    # One penalty for all weights: a column that is multiplied by s is penalised s^2 times less.
    strength = features_c if inputs.ngrams is None else c
    larger = np.ones(logs.shape[1] + (0 if inputs.ngrams is None else inputs.ngrams.shape[1]))
    larger[: logs.shape[1]] = np.sqrt(features_c / strength)
    table = _table(inputs, center, scale)
    table = table * larger if inputs.ngrams is None else table @ sparse.diags(larger)
    slopes, bias = _fitted(table, targets, family, strength, not odd, weights)
    return LinearHead(center, scale, slopes * larger, np.broadcast_to(bias, len(slopes)).astype(np.float64))


def _fitted(
    table: np.ndarray | sparse.csr_matrix,
    targets: np.ndarray,
    family: Family,
    strength: float,
    intercept: bool,
    weights: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights (scores, columns) and biases."""
    if family.exchangeable:
        return _option_weights(table, targets, family, strength, weights), np.zeros(1)
    if not family.bounded:
        squares = Ridge(alpha=1.0 / strength).fit(table, targets, sample_weight=weights)
        return squares.coef_.reshape(1, -1), squares.intercept_
    model = LogisticRegression(C=strength, fit_intercept=intercept, max_iter=MAX_ITERATIONS)
    if (targets % 1 == 0).all():
        model.fit(table, targets.astype(np.int64), sample_weight=weights)
    else:  # a share is that much of a row with 1, and the rest of a row with 0
        twice = np.vstack([table, table]) if isinstance(table, np.ndarray) else sparse.vstack([table, table], "csr")
        outcomes, rows = np.repeat([1, 0], len(targets)), np.concatenate([targets, 1 - targets])
        rows = rows if weights is None else rows * np.tile(weights, 2)
        model.fit(twice, outcomes, sample_weight=rows)
    return model.coef_, model.intercept_


def _option_weights(
    table: np.ndarray | sparse.csr_matrix,
    chosen: np.ndarray,
    family: Family,
    strength: float,
    weights: np.ndarray | None,
) -> np.ndarray:
    """Returns weights (1, columns) of a softmax over a row's options: a conditional logit (McFadden 1974)."""
    statistic = chosen.reshape(family.outputs, -1).T
    scale = 1.0 / (strength * len(statistic))
    counts = None if weights is None else weights[: len(statistic)]  # the same for all options of a row

    def loss_and_slope(found: np.ndarray) -> tuple[float, np.ndarray]:
        losses, slope = family.loss_and_slope((table @ found).reshape(family.outputs, -1).T.copy(), statistic)
        if counts is not None:
            losses, slope = losses * counts, slope * counts[:, None]
        loss = losses.mean() + scale * 0.5 * found @ found
        return loss, table.T @ slope.T.reshape(-1) / len(statistic) + scale * found

    start = np.zeros(table.shape[1])
    found = minimize(loss_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS})
    return found.x.reshape(1, -1)


def _table(inputs: Inputs, center: np.ndarray, scale: np.ndarray) -> np.ndarray | sparse.csr_matrix:
    """Returns standardised features and n-grams side by side."""
    dense = np.clip((_signed_log(inputs.dense) - center) / scale, -FURTHEST, FURTHEST)
    return dense if inputs.ngrams is None else sparse.hstack([sparse.csr_matrix(dense), inputs.ngrams], format="csr")


def _signed_log(values: np.ndarray) -> np.ndarray:
    """Counts of texts have long tails; this keeps the sign and is odd."""
    return np.sign(values) * np.log1p(np.abs(values.astype(np.float64)))
