"""Chooses a stacker: each candidate is tuned, fitted and calibrated inside outer folds, and scored on the one left out.

The scores are honest about the second level only: the OOF columns of the training rows came from base models that had
seen the outer fold. What that hides, only the holdout can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.competitions.decision import fit_decision
from pipeline.competitions.metrics import metric_named
from pipeline.competitions.task import Competition
from pipeline.ensemble.fitting import Common, fit_stacker
from pipeline.ensemble.scoring import Answers, row_scores
from pipeline.ensemble.stack_inputs import SecondLevel, stack_inputs
from pipeline.ensemble.stackers import predict
from pipeline.ensemble.table import Table
from pipeline.ensemble.uncertainty import cluster_error
from pipeline.errors import PodiumError


def second_level(
    table: Table, members: list[str], competition: Competition, with_features: bool, seed: int
) -> SecondLevel:
    """Returns what stackers learn from, for a table of rows that all `members` cover; LightGBM asks for features."""
    inputs = stack_inputs([table.probabilities[m] for m in members], table.rows, competition, with_features)
    return SecondLevel(inputs, table.labels, table.parts(competition, seed), table.groups(competition))


def nested_candidates(
    names: Sequence[str], rows: SecondLevel, competition: Competition, threads: int, seed: int
) -> dict[str, Answers]:
    """Returns candidate -> answers to each part, from a fit, a calibration and a decision on the others."""
    result = {
        name: Answers(np.empty((len(rows.labels), len(competition.outputs))), rows.labels.copy()) for name in names
    }
    for part in np.unique(rows.parts):
        outside, common = rows.parts == part, Common()
        inside, asked = rows.take(~outside), rows.inputs.take(outside)
        for name in names:
            fitted = fit_stacker(name, inside, competition, threads, seed, common)
            means = fitted.calibration.apply(predict(fitted.model, asked, competition), competition.family)
            inner = fitted.calibration.apply(fitted.inner, competition.family)
            result[name].means[outside] = means
            result[name].decided[outside] = fit_decision(inside.labels, inner, competition).apply(means, competition)
    return result


def simplest_of_the_best(losses: dict[str, np.ndarray], groups: np.ndarray) -> str:
    """Returns the first candidate (they stand from the simplest on) within one paired standard error of the best.

    `losses` holds one number per row and candidate, lower is better; the error is clustered by `groups` (rows,).
    """
    best = min(losses, key=lambda name: losses[name].mean())
    gaps = {name: loss - losses[best] for name, loss in losses.items()}
    return next((name for name, gap in gaps.items() if gap.mean() <= cluster_error(gap, groups)), best)


@dataclass(frozen=True)
class Comparison:
    """The candidates on the rows that all members cover."""

    table: Table
    second: SecondLevel
    """The same rows as the stackers saw them."""
    nested: dict[str, Answers]
    """Candidate -> level-2 nested answers."""
    chosen: str


def compare_candidates(
    oof: Table, members: list[str], candidates: tuple[str, ...], competition: Competition, threads: int, seed: int
) -> Comparison:
    """Returns nested predictions of every candidate, and the simplest within a paired standard error of the best.

    Raises: PodiumError where no row is covered by all members.
    """
    table = oof.covered_by(members)
    if not len(table.labels):
        raise PodiumError(f"params.yaml: members {', '.join(members)} train no fold in common, nothing can be stacked")
    if competition.family.exchangeable and len(candidates) > 1:
        candidates = tuple(name for name in candidates if name != "lightgbm")  # it would tell one option from another
    rows = second_level(table, members, competition, "lightgbm" in candidates, seed)
    outer = len(np.unique(rows.parts))
    print(f"stack: {', '.join(candidates)} on {len(table.labels)} rows in {outer} outer folds", flush=True)
    nested = nested_candidates(candidates, rows, competition, threads, seed)
    sign = metric_named(competition.metric).sign
    losses = {name: -sign * row_scores(table.labels, each, rows.groups, competition) for name, each in nested.items()}
    if not np.isfinite(list(losses.values())).all():  # a metric without a value here, such as the AUC of one class
        losses = {name: competition.family.losses(table.labels, each.means) for name, each in nested.items()}
    return Comparison(table, rows, nested, simplest_of_the_best(losses, rows.groups))
