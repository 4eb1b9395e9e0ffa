"""LightGBM whose number of trees is found on an inner slice of the training rows, never on rows that are scored.

Ke et al. 2017, "LightGBM: a highly efficient gradient boosting decision tree".
"""

from __future__ import annotations

from functools import partial
from typing import Any

import lightgbm as lgb
import numpy as np

from pipeline.competitions.family import Categorical, Family
from pipeline.settings.tabular import Boosting

INNER_SHARE = 0.2
"""Share of the groups that early stopping watches."""
LOSSES = {True: "log loss", False: "RMSE in standard deviations"}
"""Family.bounded -> what early stopping watches."""


def fit_boosting(
    inputs: np.ndarray,
    targets: np.ndarray,
    family: Family,
    groups: np.ndarray,
    settings: Boosting,
    threads: int,
    seed: int,
    weights: np.ndarray | None = None,
) -> lgb.Booster:
    """Finds the number of trees with one fifth of the groups kept apart, then fits that many on all rows.

    inputs (rows, columns); targets (rows,) as in fit_linear_head; groups (rows,): rows of one group stay together. Two
    fits with the same arguments give the same bytes. With fewer than two groups, or a class that the rest of the rows
    would lack, nothing can be kept apart: then a quarter of `max_trees` is fitted. `weights` (rows,) say how often each
    row's loss counts.
    """
    apart = stopping_rows(groups, seed)
    fewest = max(int((~apart).sum()), 1)
    parameters = {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_rows_in_leaf,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": min(max(settings.row_share, 1.5 / fewest), 1.0),  # LightGBM fails where it draws no row
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "seed": seed,
        "num_threads": threads,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    } | _objective(family, targets)
    trees = max(1, settings.max_trees // 4)
    outcomes = len(np.unique(targets)) if isinstance(family, Categorical) else 2
    if apart.any() and np.ptp(inputs[~apart], axis=0).any() and len(np.unique(targets[~apart])) >= outcomes:
        inner, outer = (None, None) if weights is None else (weights[apart], weights[~apart])
        training = lgb.Dataset(inputs[~apart], targets[~apart], weight=outer)
        watched = lgb.Dataset(inputs[apart], targets[apart], weight=inner, reference=training)
        stopping = lgb.early_stopping(settings.patience, verbose=False)
        watch = partial(_option_loss, family) if family.exchangeable else None
        probe = lgb.train(
            parameters, training, settings.max_trees, valid_sets=[watched], feval=watch, callbacks=[stopping]
        )
        trees = max(1, probe.best_iteration)
        loss = next(iter(probe.best_score["valid_0"].values()))
        print(f"    {trees} trees, {LOSSES[family.bounded]} {loss:.4f} on {apart.sum()} inner rows", flush=True)
    return lgb.train(parameters, lgb.Dataset(inputs, targets, weight=weights), trees)


def _objective(family: Family, targets: np.ndarray) -> dict[str, Any]:
    """Returns LightGBM's objective for an answer of that kind, and its metric where that is not the objective's own."""
    if family.exchangeable:
        # With an objective of ours, LightGBM stops with an error where its filters leave no column.
        kept = {"feature_pre_filter": False, "min_data_in_bin": 1}
        return {"objective": partial(_option_slopes, family), "metric": "None"} | kept
    if isinstance(family, Categorical):
        classes = int(targets.max()) + 1
        return {"objective": "multiclass", "num_class": classes} if classes > 2 else {"objective": "binary"}
    return {"objective": "cross_entropy"} if family.bounded else {"objective": "regression", "metric": "rmse"}


def _option_slopes(family: Family, raw: np.ndarray, data: lgb.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns first and second derivatives of the softmax over a row's options, as LightGBM's own multiclass has it."""
    _, slope, chosen = _over_options(family, raw, data)
    share = slope + chosen
    curvature = share * (1 - share) * family.outputs / (family.outputs - 1)
    if (counts := data.get_weight()) is not None:  # LightGBM leaves them to who brings an objective
        counts = np.asarray(counts).reshape(family.outputs, -1).T
        slope, curvature = slope * counts, curvature * counts
    return slope.T.reshape(-1), curvature.T.reshape(-1)


def _option_loss(family: Family, raw: np.ndarray, data: lgb.Dataset) -> tuple[str, float, bool]:
    return "loss", float(_over_options(family, raw, data)[0].mean()), False


def _over_options(family: Family, raw: np.ndarray, data: lgb.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns losses (rows,), slopes and answers, each (rows, options), of scores option by option."""
    chosen = np.asarray(data.get_label()).reshape(family.outputs, -1).T
    return *family.loss_and_slope(np.array(raw.reshape(family.outputs, -1).T, order="C"), chosen), chosen


def stopping_rows(groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns (rows,) bool: one fifth of the groups, drawn with `seed`; no row where there is only one group."""
    distinct = np.unique(groups)
    drawn = np.random.default_rng(seed).permutation(distinct)[: int(np.ceil(INNER_SHARE * len(distinct)))]
    return np.isin(groups, drawn) if len(distinct) > 1 else np.zeros(len(groups), dtype=bool)
