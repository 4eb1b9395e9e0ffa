"""Fits the stackers. Each candidate is tuned on inner folds of the rows that it is given, and on nothing else.

From the simplest: `mean`, `greedy` (forward selection of members with replacement, Caruana et al. 2004, "Ensemble
selection from libraries of models"), `weights` (one non-negative weight per member, their sum free), `logistic`
(multinomial logistic regression) and `lightgbm` (trees that correct `logistic`, on logits and text features).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import lightgbm as lgb
import numpy as np
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from pipeline.competitions.metrics import log_losses
from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import UNCALIBRATED, Calibration, fit_calibration
from pipeline.ensemble.linear import LinearForm, fit_linear, full_form, scalar_form
from pipeline.ensemble.logits import from_logits, to_logits
from pipeline.ensemble.stack_inputs import SecondLevel
from pipeline.ensemble.stackers import Boosted, Linear, Stacker, equal_mean, predict, scalar_weights, tree_inputs

POWERS = (-3.0, 1.0)
"""Powers of ten between which the penalty's strength is sought. Below, weights grow on the fold models' offsets: each
fold model has its own level per class, and with a handful of folds such levels can agree with the labels by chance."""

XATOL = 0.25
"""Steps finer than this, in powers of ten, change nothing that the rows could show."""

ROUNDS = 20
"""How often greedy selection picks a member; repetitions make weights of 1/20, 2/20, ... of the picks."""

BOOSTING: dict[str, Any] = {
    "objective": "multiclass",
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


@dataclass(frozen=True)
class Fit:
    """A fitted stacker, and what its like says about rows that it was not fitted on."""

    model: Stacker
    inner: np.ndarray
    """(rows, classes), not calibrated: each inner part predicted by the same settings, fitted on the other parts."""
    calibration: Calibration = UNCALIBRATED
    """What `inner` asks for."""


@dataclass
class Common:
    """What candidates on the same rows and parts have in common: computed by the first that needs it."""

    greedy: list[np.ndarray] = field(default_factory=list)
    """(members,) greedy weights: one array per inner part, fitted on the others, and one fitted on all rows."""
    logistic: Fit | None = None

    def greedy_on(self, logits: np.ndarray, labels: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
        """Returns `greedy`; `masks` hold the rows of each inner part."""
        if not self.greedy:
            self.greedy = [greedy_weights(logits[~mask], labels[~mask]) for mask in masks]
            self.greedy.append(greedy_weights(logits, labels))
        return self.greedy


def fit_stacker(
    name: str, rows: SecondLevel, competition: Competition, threads: int, seed: int, common: Common | None = None
) -> Fit:
    """Returns the candidate `name` fitted on all of `rows`, whose parts are the folds that tune and calibrate it.

    Candidates on the same rows and parts may share a `common`: they find the same, and sooner.
    """
    with threadpool_limits(threads):
        found = _fit(name, rows, competition, threads, seed, common or Common())
    calibration = fit_calibration(rows.labels, found.inner, rows.parts, rows.groups, competition)
    return replace(found, calibration=calibration)


def _fit(name: str, rows: SecondLevel, competition: Competition, threads: int, seed: int, common: Common) -> Fit:
    (members, classes), mirror = rows.inputs.logits.shape[1:], competition.kind.mirror
    if name == "mean":
        model = equal_mean(members, classes)
        return Fit(model, predict(model, rows.inputs, competition))
    if name == "greedy":
        return _fit_greedy(rows, common)
    if name == "weights":
        return _fit_linear(name, rows, scalar_form(classes, mirror), common)
    if common.logistic is None:
        common.logistic = _fit_linear("logistic", rows, full_form(classes, mirror), common)
    if name == "logistic":
        return common.logistic
    return _fit_boosted(common.logistic, rows, competition, threads, seed)


def _fit_linear(name: str, rows: SecondLevel, form: LinearForm, common: Common) -> Fit:
    """Drawn to what greedy selection says, with a strength that the inner parts choose."""
    logits, labels, parts = rows.inputs.logits, rows.labels, rows.parts
    masks = [parts == part for part in np.unique(parts)]
    *centres, centre = common.greedy_on(logits, labels, masks)
    tried: dict[float, np.ndarray] = {}

    def loss(power: float) -> float:
        tried[power] = np.empty((len(labels), logits.shape[2]))
        for mask, centre in zip(masks, centres, strict=True):
            model = Linear(name, *fit_linear(logits[~mask], labels[~mask], form, centre, 10.0**power))
            tried[power][mask] = from_logits(model.logits(logits[mask]))
        return float(log_losses(labels, tried[power]).mean())

    best = float(minimize_scalar(loss, bounds=POWERS, method="bounded", options={"xatol": XATOL}).x)
    return Fit(Linear(name, *fit_linear(logits, labels, form, centre, 10.0**best)), tried[best])


def _fit_greedy(rows: SecondLevel, common: Common) -> Fit:
    logits, labels, parts, classes = rows.inputs.logits, rows.labels, rows.parts, rows.inputs.logits.shape[2]
    inner = np.empty((len(labels), classes))
    masks = [parts == part for part in np.unique(parts)]
    *shares, everywhere = common.greedy_on(logits, labels, masks)
    for mask, share in zip(masks, shares, strict=True):
        inner[mask] = from_logits(scalar_weights("greedy", share, classes).logits(logits[mask]))
    return Fit(scalar_weights("greedy", everywhere, classes), inner)


def greedy_weights(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns each member's share of ROUNDS picks, (members,); each pick most lowers the loss of the mean so far."""
    picks = np.zeros(logits.shape[1])
    each = np.ascontiguousarray(logits.transpose(2, 1, 0), dtype=np.float32)  # (classes, members, rows)
    total = np.zeros_like(each[:, 0])
    everyone = np.arange(len(labels))
    for count in range(1, ROUNDS + 1):
        trials = (total[:, None] + each) / np.float32(count)
        of_truth = trials[labels, :, everyone].mean(axis=0, dtype=np.float64)
        top = trials.max(axis=0)
        trials -= top
        top += np.log(np.exp(trials, out=trials).sum(axis=0))
        best = int((top.mean(axis=1, dtype=np.float64) - of_truth).argmin())
        picks[best] += 1
        total += each[:, best]
    return picks / ROUNDS


def _fit_boosted(base: Fit, rows: SecondLevel, competition: Competition, threads: int, seed: int) -> Fit:
    """Trees that start from what `base` (`logistic`, fitted on the other inner parts) says about each row."""
    assert isinstance(base.model, Linear)
    inputs, labels, parts = rows.inputs, rows.labels, rows.parts
    table, start, classes = tree_inputs(inputs.logits, inputs.features), to_logits(base.inner), labels
    mirror = competition.kind.mirror
    if mirror:  # both orders of every row; a row and its mirror image stay in one part
        table = np.concatenate([table, tree_inputs(inputs.mirrored_logits, inputs.mirrored_features)])
        start = np.concatenate([start, competition.mirrored(start)])
        classes, parts = np.concatenate([labels, np.asarray(mirror)[labels]]), np.tile(parts, 2)
    settings = BOOSTING | {"num_class": len(competition.outputs), "num_threads": threads, "seed": seed}
    data = lgb.Dataset(table, label=classes, init_score=start, params=settings, free_raw_data=False)
    folds = [(np.flatnonzero(parts != part), np.flatnonzero(parts == part)) for part in np.unique(parts)]
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    history: Any = lgb.cv(settings, data, MAX_TREES, folds=folds, callbacks=[stop], return_cvbooster=True)
    trees = int(np.argmin(history["valid multi_logloss-mean"])) + 1
    raw = np.empty_like(start)
    for (_, outside), booster in zip(folds, history["cvbooster"].boosters, strict=True):
        raw[outside] = booster.predict(table[outside], raw_score=True, num_iteration=trees, num_threads=threads)
    inner = from_logits(start + raw)
    if mirror:
        inner = (inner[: len(labels)] + competition.mirrored(inner[len(labels) :])) / 2
    return Fit(Boosted(base.model, lgb.train(settings, data, trees), threads), inner)
