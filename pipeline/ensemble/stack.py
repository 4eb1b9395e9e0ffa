"""The second level as a whole: which stacker is chosen, and how it does on the holdout.

python -m stages.stack
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.data.folds import assign_folds, group_keys
from pipeline.ensemble.build_ladder import with_averaging
from pipeline.ensemble.calibration import Calibration, fit_shift
from pipeline.ensemble.ladder import Ladder, Rung
from pipeline.ensemble.nested import nested_candidates, second_level, simplest_of_the_best
from pipeline.ensemble.stack_inputs import SecondLevel
from pipeline.ensemble.table import Holdout, Table
from pipeline.errors import PodiumError


@dataclass(frozen=True)
class Comparison:
    """The candidates on the rows that all members cover."""

    table: Table
    second: SecondLevel
    """The same rows as the stackers saw them."""
    nested: dict[str, np.ndarray]
    """Candidate -> (rows, classes) level-2 nested predictions."""
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
    rows = second_level(table, members, competition, "lightgbm" in candidates, seed)
    outer = len(np.unique(rows.parts))
    print(f"stack: {', '.join(candidates)} on {len(table.labels)} rows in {outer} outer folds", flush=True)
    nested = nested_candidates(candidates, rows, competition, threads, seed)
    metric = METRICS[competition.metric]
    losses = {name: -metric.sign * metric.per_row(table.labels, each) for name, each in nested.items()}
    return Comparison(table, rows, nested, simplest_of_the_best(losses, rows.groups))


@dataclass(frozen=True)
class HoldoutAnswers:
    """What the full set of members says about the holdout."""

    single: list[np.ndarray]
    """(rows, classes) per fold that all members train: the stacker fed with single fold models."""
    average: np.ndarray
    """(rows, classes): fed with the average of all, without a shift."""
    shifted: np.ndarray
    """`average`, each half under the shift that the other half gave: nothing was fitted on the row that it answers."""


def calibrate(ladder: Ladder, holdout: Holdout | None, seed: int) -> tuple[Ladder, HoldoutAnswers | None]:
    """Returns the ladder with each rung's shift to the average of all fold models, and the full set's answers.

    The kernel gets the shift that the whole holdout gives.
    """
    if holdout is None:
        return ladder, None
    competition, labels = ladder.competition, holdout.average.labels
    halves = assign_folds(group_keys(holdout.average.rows, competition.kind), labels, 2, 0.0, seed)
    rungs: list[Rung] = []
    held = None
    for rung in ladder.rungs:
        if rung.model is None:
            rungs.append(rung)
            continue
        average = _answer(rung, ladder, holdout.average)
        complete = [table for table in holdout.single.values() if table.covers(list(rung.members)).all()]
        single = [_answer(rung, ladder, table) for table in complete]
        shifts = [1.0, 1.0, 1.0]
        if single:
            masks = (halves == 1, halves == 0, halves >= 0)
            shifts = [fit_shift(labels[m], [each[m] for each in single], average[m]) for m in masks]
        crossed = [Calibration(shift=shift).apply(average) for shift in shifts[:2]]
        held = HoldoutAnswers(single, average, np.where(halves[:, None] == 0, *crossed))
        rung = with_averaging(rung, labels, single, held.shifted) if single else rung
        rungs.append(replace(rung, calibration=replace(rung.calibration, shift=shifts[2])))
    return replace(ladder, rungs=tuple(rungs)), held


def _answer(rung: Rung, ladder: Ladder, table: Table) -> np.ndarray:
    available = {name: table.probabilities[name] for name in rung.members}
    return replace(ladder, rungs=(rung,)).predict(available, table.rows)[0]
