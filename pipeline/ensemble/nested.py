"""Level-2 nested scores: each candidate is tuned, fitted and calibrated inside outer folds, scored on the one left out.

The scores are honest about the second level only: the OOF columns of the training rows came from base models that had
seen the outer fold. What that hides, only the holdout can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import fit_calibration
from pipeline.ensemble.fitting import Common, Fit, fit_stacker
from pipeline.ensemble.stack_inputs import SecondLevel, stack_inputs
from pipeline.ensemble.stackers import predict
from pipeline.ensemble.table import Table
from pipeline.ensemble.uncertainty import cluster_error


def second_level(
    table: Table, members: list[str], competition: Competition, with_features: bool, seed: int
) -> SecondLevel:
    """Returns what stackers learn from, for a table of rows that all `members` cover; LightGBM asks for features."""
    inputs = stack_inputs([table.probabilities[m] for m in members], table.rows, competition, with_features)
    return SecondLevel(inputs, table.labels, table.parts(competition, seed), table.groups(competition))


def fit_calibrated(
    name: str, rows: SecondLevel, competition: Competition, threads: int, seed: int, common: Common | None = None
) -> Fit:
    """Returns the candidate `name` with the calibration that its answers to rows it was not fitted on ask for.

    `common` is shared by candidates on the same rows.
    """
    found = fit_stacker(name, rows, competition, threads, seed, common)
    calibration = fit_calibration(rows.labels, found.inner, rows.parts, rows.groups, competition)
    return replace(found, calibration=calibration)


def nested_predictions(name: str, rows: SecondLevel, competition: Competition, threads: int, seed: int) -> np.ndarray:
    """Returns the candidate's predictions for each part from a fit and calibration on the others, (rows, classes)."""
    return nested_candidates((name,), rows, competition, threads, seed)[name]


def nested_candidates(
    names: Sequence[str], rows: SecondLevel, competition: Competition, threads: int, seed: int
) -> dict[str, np.ndarray]:
    """Returns candidate -> its `nested_predictions`; together they take less time than one by one."""
    result = {name: np.empty((len(rows.labels), len(competition.classes))) for name in names}
    for part in np.unique(rows.parts):
        outside, common = rows.parts == part, Common()
        inside, asked = rows.take(~outside), rows.inputs.take(outside)
        for name in names:
            fitted = fit_calibrated(name, inside, competition, threads, seed, common)
            result[name][outside] = fitted.calibration.apply(predict(fitted.model, asked, competition))
    return result


def simplest_of_the_best(losses: dict[str, np.ndarray], groups: np.ndarray) -> str:
    """Returns the first candidate (they stand from the simplest on) within one paired standard error of the best.

    `losses` holds one number per row and candidate, lower is better; the error is clustered by `groups` (rows,).
    """
    best = min(losses, key=lambda name: losses[name].mean())
    gaps = {name: loss - losses[best] for name, loss in losses.items()}
    return next((name for name, gap in gaps.items() if gap.mean() <= cluster_error(gap, groups)), best)
