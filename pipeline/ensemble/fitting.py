"""Fits the stackers. Each candidate is tuned on inner folds of the rows that it is given, and on nothing else.

From the simplest: `mean`, `greedy` (forward selection of members with replacement, Caruana et al. 2004, "Ensemble
selection from libraries of models"), `weights` (one non-negative weight per member, their sum free), `logistic`
(multinomial logistic regression) and `lightgbm` (trees that correct `logistic`, on logits and text features).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np
from scipy.optimize import minimize_scalar

from pipeline.competitions.family import Categorical, Family
from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import UNCALIBRATED, Calibration, fit_calibration
from pipeline.ensemble.linear import LinearForm, fit_linear, full_form, scalar_form
from pipeline.ensemble.stack_inputs import SecondLevel
from pipeline.ensemble.stackers import (
    Boosted,
    Linear,
    Stacker,
    equal_mean,
    predict,
    raw_scores,
    scalar_weights,
    tree_inputs,
)

POWERS = (-3.0, 1.0)
"""Powers of ten between which the penalty's strength is sought. Below, weights grow on the fold models' offsets: each
fold model has its own level per class, and with a handful of folds such levels can agree with the labels by chance."""

XATOL = 0.25
"""Steps finer than this, in powers of ten, change nothing that the rows could show."""

MOST_SOUGHT = 400_000
"""Of more numbers (rows times outputs) every second, third, ... row is enough to seek the strength on; all rows are
fitted with what it is. 36,700 rows of 65 classes would take a stack hours."""

ROUNDS = 20
"""How often greedy selection picks a member; repetitions make weights of 1/20, 2/20, ... of the picks."""

BOOSTING: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 5,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 20.0,
    "max_bin": 63,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
MAX_TREES, PATIENCE = 300, 25
FEWEST_ROWS = 2
"""LightGBM fails where its share of the rows is none of them."""


@dataclass(frozen=True)
class Fit:
    """A fitted stacker, and what its like says about rows that it was not fitted on."""

    model: Stacker
    inner: np.ndarray
    """(rows, outputs), not calibrated: each inner part predicted by the same settings, fitted on the other parts."""
    calibration: Calibration = UNCALIBRATED
    """What `inner` asks for."""


@dataclass
class Common:
    """What candidates on the same rows and parts have in common: computed by the first that needs it."""

    greedy: list[np.ndarray] = field(default_factory=list)
    """(members,) greedy weights: one array per inner part, fitted on the others, and one fitted on all rows."""
    logistic: Fit | None = None

    def greedy_on(self, rows: SecondLevel, family: Family, masks: list[np.ndarray]) -> list[np.ndarray]:
        """Returns `greedy`; `masks` hold the rows of each inner part."""
        if not self.greedy:
            logits, labels = rows.inputs.logits, rows.labels
            self.greedy = [greedy_weights(logits[~mask], labels[~mask], family) for mask in masks]
            self.greedy.append(greedy_weights(logits, labels, family))
        return self.greedy


def fit_stacker(
    name: str, rows: SecondLevel, competition: Competition, threads: int, seed: int, common: Common | None = None
) -> Fit:
    """Returns the candidate `name` fitted on all of `rows`, whose parts are the folds that tune and calibrate it.

    Candidates on the same rows and parts may share a `common`: they find the same, and sooner.
    """
    found = _fit(name, rows, competition, threads, seed, common or Common())
    calibration = fit_calibration(rows.labels, found.inner, rows.parts, rows.groups, competition)
    return replace(found, calibration=calibration)


def _fit(name: str, rows: SecondLevel, competition: Competition, threads: int, seed: int, common: Common) -> Fit:
    (members, outputs), mirror, family = rows.inputs.logits.shape[1:], competition.kind.mirror, competition.family
    if name == "mean":
        model = equal_mean(members, outputs)
        return Fit(model, predict(model, rows.inputs, competition))
    if name == "greedy":
        return _fit_greedy(rows, family, common)
    if name == "weights":
        return _fit_linear(name, rows, family, scalar_form(family, mirror), common)
    if common.logistic is None:
        common.logistic = _fit_linear("logistic", rows, family, full_form(family, mirror), common)
    if name == "logistic":
        return common.logistic
    return _fit_boosted(common.logistic, rows, competition, threads, seed)


def _fit_linear(name: str, rows: SecondLevel, family: Family, form: LinearForm, common: Common) -> Fit:
    """Drawn to what greedy selection says, with a strength that the inner parts choose."""
    logits, labels, parts = rows.inputs.logits, rows.labels, rows.parts
    masks = [parts == part for part in np.unique(parts)]
    *centres, centre = common.greedy_on(rows, family, masks)
    everywhere = np.ones(len(labels), dtype=bool)
    stride = math.ceil(len(labels) * logits.shape[2] / MOST_SOUGHT)
    sought = np.arange(len(labels)) % stride == 0
    tried: dict[float, np.ndarray] = {}

    def inner(power: float, among: np.ndarray) -> np.ndarray:
        """Answers (rows, outputs) to each part, by fits on the other parts' rows of the mask `among`."""
        told = np.empty((len(labels), logits.shape[2]))
        for mask, centre in zip(masks, centres, strict=True):
            seen = among & ~mask
            model = Linear(name, *fit_linear(logits[seen], labels[seen], family, form, centre, 10.0**power))
            told[mask] = family.means(model.logits(logits[mask]))
        return told

    def loss(power: float) -> float:
        tried[power] = inner(power, sought)
        return float(family.losses(labels, tried[power]).mean())

    best = float(minimize_scalar(loss, bounds=POWERS, method="bounded", options={"xatol": XATOL}).x)
    told = tried[best]
    if stride > 1:  # the penalty is that of a mean loss: of more rows it takes a smaller share
        best = max(POWERS[0], best - math.log10(stride))
        told = inner(best, everywhere)
    return Fit(Linear(name, *fit_linear(logits, labels, family, form, centre, 10.0**best)), told)


def _fit_greedy(rows: SecondLevel, family: Family, common: Common) -> Fit:
    logits, parts, outputs = rows.inputs.logits, rows.parts, rows.inputs.logits.shape[2]
    inner = np.empty((len(logits), outputs))
    masks = [parts == part for part in np.unique(parts)]
    *shares, everywhere = common.greedy_on(rows, family, masks)
    for mask, share in zip(masks, shares, strict=True):
        inner[mask] = family.means(scalar_weights("greedy", share, outputs).logits(logits[mask]))
    return Fit(scalar_weights("greedy", everywhere, outputs), inner)


def greedy_weights(logits: np.ndarray, labels: np.ndarray, family: Family) -> np.ndarray:
    """Returns each member's share of ROUNDS picks, (members,); each pick most lowers the loss of the mean so far."""
    picks = np.zeros(logits.shape[1])
    truth = family.statistic(labels)
    # Outputs first: sums over them are then sums of long rows. What is not known counts alike whatever is picked.
    known = np.isfinite(truth).T[:, None]
    each = np.where(known, logits.transpose(2, 1, 0), 0.0).astype(np.float32)  # (outputs, members, rows)
    truth = np.nan_to_num(truth).T[:, None].astype(np.float32)
    total = np.zeros_like(each[:, 0])
    for count in range(1, ROUNDS + 1):
        trials = (total[:, None] + each) / np.float32(count)
        of_truth = (trials * truth).sum(axis=0).mean(axis=1, dtype=np.float64)
        best = int((family.potential(trials).mean(axis=1, dtype=np.float64) - of_truth).argmin())
        picks[best] += 1
        total += each[:, best]
    return picks / ROUNDS


def _fit_boosted(base: Fit, rows: SecondLevel, competition: Competition, threads: int, seed: int) -> Fit:
    """Trees that start from what `base` (`logistic`, fitted on the other inner parts) says about each row."""
    assert isinstance(base.model, Linear)
    inputs, labels, parts, family = rows.inputs, rows.labels, rows.parts, competition.family
    table, start = tree_inputs(inputs.logits, inputs.features), family.link(base.inner)
    mirror = competition.kind.mirror
    if mirror:  # both orders of every row; a row and its mirror image stay in one part
        table = np.concatenate([table, tree_inputs(inputs.mirrored_logits, inputs.mirrored_features)])
        start = np.concatenate([start, competition.mirrored(start)])
        labels, parts = np.concatenate([labels, competition.mirrored_labels(labels)]), np.tile(parts, 2)
    settings = BOOSTING | {"num_threads": threads, "seed": seed}
    if isinstance(family, Categorical):
        settings |= {"objective": "multiclass", "num_class": family.outputs}
        boosters, raw = _fit_trees(table, labels, start, parts, settings)
    else:
        settings |= {"objective": "cross_entropy" if family.bounded else "regression"}
        truth, each = family.statistic(labels), []
        for output in range(family.outputs):
            # A row without that label is in no booster's rows, and gets its answer like any other.
            targets, from_here = truth[:, output], start[:, output]
            found = np.bincount(parts[np.isfinite(targets)], minlength=1)
            if found.sum() - found.max() < FEWEST_ROWS:  # too few to learn from and be judged by: correct nothing
                targets = 1 / (1 + np.exp(-from_here)) if family.bounded else from_here
            each.append(_fit_trees(table, targets, from_here, parts, settings))
        boosters, raw = [booster for (booster,), _ in each], np.concatenate([raw for _, raw in each], axis=1)
    inner = family.means(start + raw)
    if mirror:
        inner = (inner[: len(rows.labels)] + competition.mirrored(inner[len(rows.labels) :])) / 2
    return Fit(Boosted(base.model, tuple(boosters), threads), inner)


def _fit_trees(
    table: np.ndarray, targets: np.ndarray, start: np.ndarray, parts: np.ndarray, settings: dict[str, Any]
) -> tuple[list[lgb.Booster], np.ndarray]:
    """Returns a booster that corrects `start`, and what its like, fitted on the other parts, adds to each row."""
    known = np.flatnonzero(np.isfinite(targets))
    data = lgb.Dataset(
        table[known], label=targets[known], init_score=start[known], params=settings, free_raw_data=False
    )
    inside = parts[known]
    folds = [(np.flatnonzero(inside != part), np.flatnonzero(inside == part)) for part in np.unique(inside)]
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    history: Any = lgb.cv(settings, data, MAX_TREES, folds=folds, callbacks=[stop], return_cvbooster=True)
    losses = next(values for name, values in history.items() if name.endswith("-mean"))
    trees = int(np.argmin(losses)) + 1
    raw = np.zeros((len(table), start.shape[1] if start.ndim == 2 else 1))
    for part, booster in zip(np.unique(inside), history["cvbooster"].boosters, strict=True):
        outside = parts == part
        raw[outside] = raw_scores([booster], table[outside], settings["num_threads"], trees)
    return [lgb.train(settings, data, trees)], raw
