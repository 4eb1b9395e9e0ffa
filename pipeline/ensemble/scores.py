"""The numbers of metrics/cv.json, from the tables of the second level."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.metrics import METRICS, decisive_log_loss
from pipeline.competitions.task import Competition
from pipeline.ensemble.ladder import Ladder
from pipeline.ensemble.nested import standard_error
from pipeline.ensemble.stack import Comparison
from pipeline.ensemble.table import Table


def cv_scores(
    oof: Table,
    holdout: Table | None,
    truth: np.ndarray | None,
    comparison: Comparison,
    ladder: Ladder,
    held: np.ndarray | None,
    seconds: dict[str, float | None],
) -> dict[str, Any]:
    """Everything that metrics/cv.json states; scores are in the competition's own metric.

    `held` are the full set's cross-fitted holdout probabilities, `seconds` what each member's fold models took.
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
    scores["members"] = {
        name: member_scores(own[name], holdout, name, competition) | {"seconds": seconds.get(name)} for name in members
    }
    scores["stack"] = {
        "chosen": comparison.chosen,
        "score": metric.score(table.labels, nested),
        "standard_error": standard_error(metric, table.labels, nested),
        "rows": len(table.labels),
        "holdout": None if holdout is None or held is None else metric.score(holdout.labels, held),
        "temperature": ladder.rungs[-1].temperature,
        "candidates": {name: metric.score(table.labels, each) for name, each in comparison.nested.items()},
        "best_member": max(members, key=covered_score) if metric.greater_is_better else min(members, key=covered_score),
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


def member_scores(own: Table, holdout: Table | None, name: str, competition: Competition) -> dict[str, Any]:
    """One member's entry in metrics/cv.json; `own` are the rows that it covers."""
    metric = METRICS[competition.metric]
    folds, probabilities = own.rows["fold"].to_numpy(), own.probabilities[name]
    score = metric.score(own.labels, probabilities)
    return {
        "score": score,
        "fold_scores": [metric.score(own.labels[folds == k], probabilities[folds == k]) for k in np.unique(folds)],
        "holdout": None if holdout is None else metric.score(holdout.labels, holdout.probabilities[name]),
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
        if member["rows"] < scores["rows"]:
            fitted = scores["stack"]["rows"]
            found.append(f'member "{name}" covers {member["rows"]} of {scores["rows"]} rows; the stack uses {fitted}')
    return found
