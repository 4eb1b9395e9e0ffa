"""One draw of benchmarks/stack/honesty.py: a new competition, cheap members, our stack, rivals, and planted leaks."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from scipy.optimize import minimize
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from benchmarks.stack.cheap_members import COMPETITION, KINDS, Member, Rows, draw_rows
from pipeline.artifacts import HOLDOUT
from pipeline.competitions.family import Categorical, average, log_losses
from pipeline.data.folds import assign_folds, group_keys
from pipeline.ensemble.build_ladder import build_ladder, calibrate
from pipeline.ensemble.nested import compare_candidates
from pipeline.ensemble.table import Holdout, Table
from pipeline.evaluation.leak_test import leak_test
from pipeline.members.probe import verdict

CANDIDATES = ("mean", "greedy", "weights", "logistic", "lightgbm")
FOLDS, HELD_OUT = 4, 0.15

CLASSES = Categorical(3)


def one_draw(seed: int, labels: str, count: int, fresh: Rows, with_rivals: bool) -> dict[str, Any]:
    """Returns everything that one draw says; log losses, each claim corrected by the luck of its own rows."""
    rows = draw_rows(count, seed)
    if labels == "noise":
        shuffled = np.random.default_rng(seed).permutation(rows.labels)
        shares = np.bincount(shuffled, minlength=3) / count
        rows = replace(rows, labels=shuffled, truth=np.tile(shares, (count, 1)))
        fresh = replace(fresh, truth=np.tile(shares, (len(fresh.labels), 1)))
    Member.rows = rows
    folds = assign_folds(group_keys(rows.frame, COMPETITION.kind), rows.labels, FOLDS, HELD_OUT, seed)
    found: dict[str, Any] = {"seed": seed, "labels": labels}
    with redirect_stdout(io.StringIO()):
        found |= _ours(rows, folds, fresh, seed)
        if with_rivals:
            found["claims"] |= _rivals(rows, fresh, seed)
    return found


def _expected(fresh: Rows, probabilities: np.ndarray) -> float:
    """The true score: expected log loss under the true probabilities."""
    return float(-(fresh.truth * np.log(np.clip(probabilities, 1.0e-15, 1.0))).sum(axis=1).mean())


def _claim(rows: Rows, chosen: np.ndarray, fresh: Rows, claimed: float, true: float) -> dict[str, float]:
    """A claim made on the rows `chosen`, beside the truth.

    The difference is one of regrets: what the true probabilities score on the same rows is taken off both, and with it
    most of the luck of the draw; its expectation stays that of claimed minus true.
    """
    best = float(log_losses(rows.labels[chosen], rows.truth[chosen]).mean())
    regret = true - _expected(fresh, fresh.truth)
    return {"claimed": claimed, "true": true, "difference": claimed - best - regret}


def _ours(rows: Rows, folds: np.ndarray, fresh: Rows, seed: int) -> dict[str, Any]:
    numbers = np.arange(len(folds))
    held, inside = numbers[folds == HOLDOUT], numbers[folds != HOLDOUT]
    models = {
        kind: [
            Member(kind).fit((chosen := numbers[(folds != k) & (folds != HOLDOUT)])[:, None], rows.labels[chosen])
            for k in range(FOLDS)
        ]
        for kind in KINDS
    }
    oof = {kind: np.full((len(folds), 3), np.nan) for kind in KINDS}
    for kind, trained in models.items():
        for k, model in enumerate(trained):
            oof[kind][folds == k] = model.predict_proba(numbers[folds == k])
    frame = rows.frame.with_columns(pl.Series("fold", folds))
    table = Table(frame[inside], rows.labels[inside], {kind: each[inside] for kind, each in oof.items()})
    single = {k: {kind: trained[k].predict_proba(held) for kind, trained in models.items()} for k in range(FOLDS)}
    holdout = _holdout(frame[held], rows.labels[held], single)
    members = list(KINDS)
    comparison = compare_candidates(table, members, CANDIDATES, COMPETITION, 1, seed)
    ladder, answers = calibrate(build_ladder(table, members, comparison.chosen, COMPETITION, 1, seed), holdout, seed)
    assert answers is not None

    asked = {kind: [model.ask(fresh.inputs, fresh.mirrored) for model in trained] for kind, trained in models.items()}
    top = replace(ladder, rungs=(ladder.rungs[-1],))
    averages = {kind: average(CLASSES, each) for kind, each in asked.items()}
    deployed = top.predict(averages, fresh.frame)[0]
    calibration = top.rungs[0].calibration
    alone = replace(top, rungs=(replace(top.rungs[0], calibration=replace(calibration, shift=1.0)),))
    fed_single = [alone.predict({kind: each[k] for kind, each in asked.items()}, fresh.frame)[0] for k in range(FOLDS)]

    equal_mean = average(CLASSES, [each for trained in asked.values() for each in trained])
    scores = {
        "entropy": _expected(fresh, fresh.truth),
        "best member": min(_expected(fresh, each) for each in averages.values()),
        "equal mean": _expected(fresh, equal_mean),
        "stack without the shift": _expected(fresh, alone.predict(averages, fresh.frame)[0]),
        "stack": _expected(fresh, deployed),
        "stack fed single fold models": float(np.mean([_expected(fresh, each) for each in fed_single])),
    }
    nested = comparison.nested[comparison.chosen].means
    claimed = float(log_losses(table.labels, nested).mean())
    held_score = float(log_losses(holdout.average.labels, answers.shifted).mean())
    claims = {
        "ours: holdout": _claim(rows, held, fresh, held_score, scores["stack"]),
        "ours: level-2 nested": _claim(rows, inside, fresh, claimed, scores["stack fed single fold models"]),
        "ours: level-2 nested, against the stack as deployed": _claim(rows, inside, fresh, claimed, scores["stack"]),
    }
    found = {"chosen": comparison.chosen, "shift": calibration.shift, "true": scores, "claims": claims}
    return found | _detections(rows, folds, table, holdout, comparison.second.groups, nested, seed)


def _holdout(frame: pl.DataFrame, labels: np.ndarray, single: dict[int, dict[str, np.ndarray]]) -> Holdout:
    tables = {k: Table(frame, labels, each) for k, each in single.items()}
    averages = {kind: average(CLASSES, [each[kind] for each in single.values()]) for kind in single[0]}
    return Holdout(Table(frame, labels, averages), tables)


def _detections(
    rows: Rows, folds: np.ndarray, table: Table, holdout: Holdout, groups: np.ndarray, nested: np.ndarray, seed: int
) -> dict[str, Any]:
    """Gap test and probe verdict on the clean members, and with each member in turn replaced by an in-sample one.

    An in-sample member has been trained on all rows outside the holdout, and predicts them and the holdout.
    """
    numbers, members = np.arange(len(folds)), list(KINDS)
    inside = numbers[folds != HOLDOUT]
    clean = leak_test(table, holdout, members, COMPETITION)
    planted: dict[str, Any] = {}
    for kind in members:
        model = Member(kind).fit(inside[:, None], rows.labels[inside])
        leaky = replace(table, probabilities=table.probabilities | {kind: model.predict_proba(inside)})
        says = model.predict_proba(numbers[folds == HOLDOUT])
        single = {k: each.probabilities | {kind: says} for k, each in holdout.single.items()}
        kept = _holdout(holdout.average.rows, holdout.average.labels, single)
        gaps = leak_test(leaky, kept, members, COMPETITION)
        before, after = (log_losses(each.labels, each.probabilities[kind]).mean() for each in (table, leaky))
        stack = compare_candidates(leaky, members, ("weights",), COMPETITION, 1, seed).nested["weights"].means
        planted[kind] = {
            "flattery": float(before - after),
            "caught": gaps[kind].leak,
            "others_accused": any(gaps[other].leak for other in members if other != kind),
            "probe": verdict(table.labels, stack, groups, COMPETITION)["leak"],
        }
    return {
        "gap": {"accused": any(gap.leak for gap in clean.values()), "planted": planted},
        "probe": verdict(table.labels, nested, groups, COMPETITION),
    }


def _rivals(rows: Rows, fresh: Rows, seed: int) -> dict[str, Any]:
    """scikit-learn's StackingClassifier with its defaults, and weights fitted and scored on the same rows."""
    everyone = np.arange(len(rows.labels))
    shuffled = np.random.default_rng(seed).permutation(everyone) % FOLDS
    splits = [(everyone[shuffled != k], everyone[shuffled == k]) for k in range(FOLDS)]
    stacking = StackingClassifier([(kind, Member(kind)) for kind in KINDS], LogisticRegression(), cv=FOLDS)
    crossed = cross_val_predict(stacking, everyone[:, None], rows.labels, cv=3, method="predict_proba")
    fitted = stacking.fit(everyone[:, None], rows.labels)
    columns = [model.ask(fresh.inputs, fresh.mirrored) for model in fitted.estimators_]
    true_sklearn = _expected(fresh, fitted.final_estimator_.predict_proba(np.concatenate(columns, axis=1)))

    models = {kind: [Member(kind).fit(inside[:, None], rows.labels[inside]) for inside, _ in splits] for kind in KINDS}
    oof = np.full((len(KINDS), len(everyone), 3), np.nan)
    for m, trained in enumerate(models.values()):
        for model, (_, outside) in zip(trained, splits, strict=True):
            oof[m][outside] = model.predict_proba(outside)
    asked = np.stack(
        [np.mean([model.ask(fresh.inputs, fresh.mirrored) for model in t], axis=0) for t in models.values()]
    )

    def loss(weights: np.ndarray) -> float:
        return float(log_losses(rows.labels, np.tensordot(weights, oof, axes=1)).mean())

    simplex = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    start = np.full(len(KINDS), 1 / len(KINDS))
    weights = minimize(loss, start, method="SLSQP", bounds=[(0, 1)] * len(KINDS), constraints=simplex).x
    table, asked_table = (np.log(np.clip(np.concatenate(list(p), axis=1), 1e-6, 1)) for p in (oof, asked))
    logistic = LogisticRegression(max_iter=1000).fit(table, rows.labels)
    resubstituted = float(log_losses(rows.labels, logistic.predict_proba(table)).mean())
    claims = {
        "scikit-learn: StackingClassifier, cross_val_predict": (
            float(log_losses(rows.labels, crossed).mean()),
            true_sklearn,
        ),
        "usual script: weights fitted and scored on all OOF rows": (
            loss(weights),
            _expected(fresh, np.tensordot(weights, asked, axes=1)),
        ),
        "usual script: logistic fitted and scored on all OOF rows": (
            resubstituted,
            _expected(fresh, logistic.predict_proba(asked_table)),
        ),
    }
    return {name: _claim(rows, everyone, fresh, *pair) for name, pair in claims.items()}
