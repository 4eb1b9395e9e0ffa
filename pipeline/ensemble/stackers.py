"""The second level: models over the members' logits. Each is fitted on both orders of the sides and answers with the
mean over both, so that mirrored rows get mirrored answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pipeline.competitions.metrics import log_losses
from pipeline.competitions.task import Competition
from pipeline.ensemble.level1 import Level1
from pipeline.ensemble.logits import from_logits

STRENGTHS = (1.0e-3, 1.0e-2, 1.0e-1, 1.0, 10.0)
"""Inverse strengths of the logistic stacker's L2 term among which the inner folds choose."""

BOOSTING: dict[str, Any] = {
    "objective": "multiclass",
    "learning_rate": 0.06,
    "num_leaves": 7,
    "min_data_in_leaf": 60,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
MAX_TREES, PATIENCE = 400, 30


@dataclass(frozen=True)
class Mean:
    """Equal mean of the members' logits. Nothing is fitted, so nothing can be overfitted."""

    name = "mean"

    def forward(self, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
        """(rows, members, classes) -> (rows, classes) probabilities."""
        return from_logits(logits.mean(axis=1))


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression on the members' logits."""

    weights: np.ndarray
    """(members * classes, classes)."""
    bias: np.ndarray
    """(classes,)."""
    name = "logistic"

    def forward(self, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
        """(rows, members, classes) -> (rows, classes) probabilities."""
        return from_logits(logits.reshape(len(logits), -1) @ self.weights + self.bias)


@dataclass(frozen=True)
class Boosted:
    """LightGBM on the members' logits and the text features."""

    booster: lgb.Booster
    threads: int
    name = "lightgbm"

    def forward(self, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
        """(rows, members, classes) and (rows, features) -> (rows, classes) probabilities."""
        return np.asarray(self.booster.predict(_table(logits, features), num_threads=self.threads))


Stacker = Mean | Logistic | Boosted


def predict(stacker: Stacker, level1: Level1, competition: Competition) -> np.ndarray:
    """(rows, classes) probabilities: the mean of both orders of the sides."""
    straight = stacker.forward(level1.logits, level1.features)
    if not competition.kind.mirror:
        return straight
    return (straight + competition.mirrored(stacker.forward(level1.mirrored_logits, level1.mirrored_features))) / 2


def fit(
    name: str, level1: Level1, labels: np.ndarray, parts: np.ndarray, competition: Competition, threads: int, seed: int
) -> Stacker:
    """Fits the candidate `name` on all given rows; `parts` (rows,) are the inner folds that tune it."""
    if name == "mean":
        return Mean()
    with threadpool_limits(threads):
        if name == "logistic":
            return _fit_logistic(level1, labels, parts, competition)
        return _fit_boosted(level1, labels, parts, competition, threads, seed)


def _fit_logistic(level1: Level1, labels: np.ndarray, parts: np.ndarray, competition: Competition) -> Logistic:
    losses = {strength: 0.0 for strength in STRENGTHS}
    for part in np.unique(parts):
        inside, outside = parts != part, parts == part
        for strength in STRENGTHS:
            fitted = _logistic(level1.take(inside), labels[inside], competition, strength)
            losses[strength] += log_losses(labels[outside], predict(fitted, level1.take(outside), competition)).sum()
    return _logistic(level1, labels, competition, min(losses, key=lambda strength: losses[strength]))


def _logistic(level1: Level1, labels: np.ndarray, competition: Competition, strength: float) -> Logistic:
    logits, _, classes = _both_orders(level1, labels, competition)
    table = logits.reshape(len(logits), -1)
    # A class that never occurred has a column too, with a bias that makes it all but 0.
    weights, bias = np.zeros((table.shape[1], len(competition.classes))), np.full(len(competition.classes), -14.0)
    present = np.unique(classes)
    bias[present] = 0.0
    if len(present) > 1:
        model = LogisticRegression(C=strength, max_iter=1000).fit(table, classes)
        coefficients, intercept = model.coef_, model.intercept_
        if len(present) == 2:  # scikit-learn keeps the second class only
            coefficients, intercept = np.vstack([-coefficients, coefficients]) / 2, np.array([-1, 1]) * intercept / 2
        weights[:, present] = coefficients.T
        bias[present] = intercept
    return Logistic(weights, bias)


def _fit_boosted(
    level1: Level1, labels: np.ndarray, parts: np.ndarray, competition: Competition, threads: int, seed: int
) -> Boosted:
    settings = BOOSTING | {"num_class": len(competition.classes), "num_threads": threads, "seed": seed}
    logits, features, classes = _both_orders(level1, labels, competition)
    table = lgb.Dataset(_table(logits, features), label=classes, free_raw_data=False)
    both = np.tile(parts, len(classes) // len(labels))  # a row and its mirror image stay in one part
    inner = [(np.flatnonzero(both != part), np.flatnonzero(both == part)) for part in np.unique(parts)]
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    history: Any = lgb.cv(settings, table, num_boost_round=MAX_TREES, folds=inner, callbacks=[stop])
    trees = int(np.argmin(history["valid multi_logloss-mean"])) + 1
    return Boosted(lgb.train(settings, table, num_boost_round=trees), threads)


def _both_orders(
    level1: Level1, labels: np.ndarray, competition: Competition
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, features and labels of all rows, followed by those of their mirror images where the task has sides."""
    mirror = competition.kind.mirror
    if not mirror:
        return level1.logits, level1.features, labels
    return (
        np.concatenate([level1.logits, level1.mirrored_logits]),
        np.concatenate([level1.features, level1.mirrored_features]),
        np.concatenate([labels, np.asarray(mirror)[labels]]),
    )


def _table(logits: np.ndarray, features: np.ndarray) -> np.ndarray:
    return np.concatenate([logits.reshape(len(logits), -1), features], axis=1)


def save(stacker: Stacker, folder: Path, file: str) -> dict[str, Any]:
    """The stacker as JSON; LightGBM's trees go to `folder / file` as text."""
    if isinstance(stacker, Logistic):
        return {"stacker": stacker.name, "weights": stacker.weights.tolist(), "bias": stacker.bias.tolist()}
    if isinstance(stacker, Boosted):
        (folder / file).write_text(stacker.booster.model_to_string(), encoding="utf-8")
        return {"stacker": stacker.name, "file": file}
    return {"stacker": stacker.name}


def load(saved: dict[str, Any], folder: Path, threads: int) -> Stacker:
    """The inverse of `save`."""
    if saved["stacker"] == "logistic":
        return Logistic(np.array(saved["weights"]), np.array(saved["bias"]))
    if saved["stacker"] == "lightgbm":
        return Boosted(lgb.Booster(model_str=(folder / saved["file"]).read_text(encoding="utf-8")), threads)
    return Mean()
