"""The numbers of metrics/cv.json, from the tables of the second level."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.metrics import METRICS, Metric, decisive_log_loss
from pipeline.competitions.task import Competition
from pipeline.ensemble.ladder import Ladder
from pipeline.ensemble.logits import geometric_mean
from pipeline.ensemble.nested import standard_error
from pipeline.ensemble.stack import Comparison, Held
from pipeline.ensemble.table import Holdout, Table
from pipeline.ensemble.uncertainty import bootstrap
from pipeline.evaluation.leak_test import Gap, gap_test


def cv_scores(
    oof: Table,
    holdout: Holdout | None,
    truth: np.ndarray | None,
    comparison: Comparison,
    ladder: Ladder,
    held: Held | None,
    seconds: dict[str, float | None],
    seed: int,
) -> dict[str, Any]:
    """Everything that metrics/cv.json states; scores are in the competition's own metric.

    `held` is what the full set says about the holdout, `seconds` what each member's fold models took, `seed` draws the
    bootstraps.
    """
    competition, table = ladder.competition, comparison.table
    metric = METRICS[competition.metric]
    members = list(ladder.rungs[-1].members)
    nested = comparison.nested[comparison.chosen]
    everywhere = np.tile(np.asarray(ladder.prior), (len(oof.labels), 1))
    own = {name: oof.covered_by([name]) for name in members}

    def covered_score(name: str) -> float:
        return metric.score(table.labels, table.probabilities[name])

    scores: dict[str, Any] = {
        "competition": competition.name,
        "metric": competition.metric,
        "rows": len(oof.labels),
        "classes": dict(zip(competition.classes, ladder.prior, strict=True)),
        "prior": metric.score(oof.labels, everywhere),
    }
    if truth is not None:
        scores["bayes"] = metric.score(oof.labels, truth)
    gaps = gap_test(oof, holdout, members, competition)
    scores["members"] = {
        name: member_scores(own[name], holdout, name, competition)
        | {"gap": asdict(gaps[name]) if name in gaps else None, "seconds": seconds.get(name)}
        for name in members
    }
    best = max(members, key=covered_score) if metric.greater_is_better else min(members, key=covered_score)
    calibration = ladder.rungs[-1].calibration
    scores["stack"] = {
        "chosen": comparison.chosen,
        "score": metric.score(table.labels, nested),
        "standard_error": standard_error(metric, table.labels, nested, comparison.second.groups),
        "rows": len(table.labels),
        "holdout": None if holdout is None or held is None else metric.score(holdout.average.labels, held.shifted),
        "temperature": calibration.temperature * calibration.shift,
        "calibration": calibration.as_dict(),
        "single_on_holdout": _single_score(holdout, held, metric),
        "candidates": {name: metric.score(table.labels, each) for name, each in comparison.nested.items()},
        "best_member": best,
        "gains": {
            "nested": _gains(table, nested, members, best, competition, seed),
            "holdout": _gains(holdout.average, held.shifted, members, best, competition, seed)
            if holdout and held
            else None,
        },
    }
    decisive = competition.kind.decisive
    if decisive:
        scores["decisive"] = {
            "prior": decisive_log_loss(oof.labels, everywhere, decisive),
            "members": {n: decisive_log_loss(t.labels, t.probabilities[n], decisive) for n, t in own.items()},
            "stack": decisive_log_loss(table.labels, nested, decisive),
        }
    scores["warnings"] = _warnings(scores, competition)
    return scores


def level2_frame(comparison: Comparison, competition: Competition) -> pl.DataFrame:
    """id, fold, label and the chosen stacker's nested probabilities, for the report."""
    nested = comparison.nested[comparison.chosen]
    return comparison.table.rows.select("id", "fold").with_columns(
        pl.Series("label", comparison.table.labels, dtype=pl.Int8),
        *(pl.Series(name, nested[:, c]) for c, name in enumerate(competition.classes)),
    )


def _gains(
    table: Table, stacked: np.ndarray, members: list[str], best: str, competition: Competition, seed: int
) -> dict[str, dict[str, float]]:
    """How much better the stack is than the best member, and than the plain equal mean: 95 % intervals, paired by row.

    Whole prompts are drawn anew; positive is better in either direction of the metric.
    """
    metric, mean = METRICS[competition.metric], geometric_mean([table.probabilities[name] for name in members])
    ours = metric.per_row(table.labels, stacked)
    others = [metric.per_row(table.labels, each) for each in (table.probabilities[best], mean)]
    sign = 1.0 if metric.greater_is_better else -1.0
    differences = np.stack([sign * (ours - other) for other in others], axis=1)
    found = bootstrap(differences, table.groups(competition), seed)
    return {name: asdict(interval) for name, interval in zip(("best_member", "equal_mean"), found, strict=True)}


def _single_score(holdout: Holdout | None, held: Held | None, metric: Metric) -> float | None:
    """The stack's holdout score when it is fed one fold model per member, not the average: the mean over the folds."""
    if holdout is None or held is None or not held.single:
        return None
    return float(np.mean([metric.score(holdout.average.labels, each) for each in held.single]))


def member_scores(own: Table, holdout: Holdout | None, name: str, competition: Competition) -> dict[str, Any]:
    """One member's entry in metrics/cv.json; `own` are the rows that it covers."""
    metric = METRICS[competition.metric]
    folds, probabilities = own.rows["fold"].to_numpy(), own.probabilities[name]
    score = metric.score(own.labels, probabilities)
    return {
        "score": score,
        "fold_scores": [metric.score(own.labels[folds == k], probabilities[folds == k]) for k in np.unique(folds)],
        "holdout": None
        if holdout is None
        else metric.score(holdout.average.labels, holdout.average.probabilities[name]),
        "attempts": 1,
        "collapsed": 0,
        "rows": len(own.labels),
    }


def _warnings(scores: dict[str, Any], competition: Competition) -> list[str]:
    """What a reader of the scores should know before trusting them."""
    metric, found = METRICS[competition.metric], []
    for name, share in scores["classes"].items():
        if share == 0:
            found.append(f'class "{name}" never occurs in the training rows outside the holdout')
    for name, member in scores["members"].items():
        if not metric.better(member["score"], scores["prior"]):
            found.append(
                f'member "{name}" is no better than the prior ({member["score"]:.4f} against {scores["prior"]:.4f})'
            )
        if member["gap"] and member["gap"]["leak"]:
            gap, error = Gap(**member["gap"]).strongest
            found.append(
                f'member "{name}" looks leaky: its fold models do {gap:.4f} ± {error:.4f} better on their own folds '
                f"than on the holdout; trust neither its score nor the stack's"
            )
        if member["rows"] < scores["rows"]:
            fitted = scores["stack"]["rows"]
            found.append(f'member "{name}" covers {member["rows"]} of {scores["rows"]} rows; the stack uses {fitted}')
    return found
