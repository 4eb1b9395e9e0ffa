"""LightGBM whose number of trees is found on an inner slice of the training rows, never on rows that are scored.

Ke et al. 2017, "LightGBM: a highly efficient gradient boosting decision tree".
"""

from __future__ import annotations

import lightgbm as lgb
import numpy as np

from pipeline.settings.tabular import Boosting

INNER_SHARE = 0.2
"""Share of the groups that early stopping watches."""


def fit_boosting(
    inputs: np.ndarray, targets: np.ndarray, groups: np.ndarray, settings: Boosting, threads: int, seed: int
) -> lgb.Booster:
    """Finds the number of trees with one fifth of the groups kept apart, then fits that many on all rows.

    inputs (rows, columns); targets (rows,), 0 to classes - 1, each of them present; groups (rows,): rows of one group
    stay together. Two fits with the same arguments give the same bytes. With fewer than two groups, or a class that the
    rest of the rows would lack, nothing can be kept apart: then a quarter of `max_trees` is fitted.
    """
    classes = int(targets.max()) + 1
    parameters = {
        "objective": "binary" if classes == 2 else "multiclass",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_rows_in_leaf,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    if classes > 2:
        parameters["num_class"] = classes
    apart = stopping_rows(groups, seed)
    trees = max(1, settings.max_trees // 4)
    if apart.any() and len(np.unique(targets[~apart])) == classes:
        training = lgb.Dataset(inputs[~apart], targets[~apart])
        watched = lgb.Dataset(inputs[apart], targets[apart], reference=training)
        stopping = lgb.early_stopping(settings.patience, verbose=False)
        probe = lgb.train(parameters, training, settings.max_trees, valid_sets=[watched], callbacks=[stopping])
        trees = max(1, probe.best_iteration)
        loss = next(iter(probe.best_score["valid_0"].values()))
        print(f"    {trees} trees, log loss {loss:.4f} on {apart.sum()} inner rows", flush=True)
    return lgb.train(parameters, lgb.Dataset(inputs, targets), trees)


def stopping_rows(groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns (rows,) bool: one fifth of the groups, drawn with `seed`; no row where there is only one group."""
    distinct = np.unique(groups)
    drawn = np.random.default_rng(seed).permutation(distinct)[: int(np.ceil(INNER_SHARE * len(distinct)))]
    return np.isin(groups, drawn) if len(distinct) > 1 else np.zeros(len(groups), dtype=bool)
