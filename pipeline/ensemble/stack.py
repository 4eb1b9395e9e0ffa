"""The second level as a whole: which stacker is chosen, and the ladder of rungs that the kernel climbs.

python -m stages.stack
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.data.folds import assign_folds, group_keys
from pipeline.ensemble.calibration import cross_fitted, fit_temperature
from pipeline.ensemble.ladder import PRIOR, Ladder, Rung
from pipeline.ensemble.level1 import build_level1
from pipeline.ensemble.nested import nested_predictions, simplest_of_the_best
from pipeline.ensemble.stackers import fit
from pipeline.ensemble.table import Table
from pipeline.errors import PodiumError

ON_THE_WAY = "logistic"
"""The stacker of every rung but the last: quick to fit, and it calibrates a single member too."""


@dataclass(frozen=True)
class Comparison:
    """The candidates on the rows that all members cover."""

    table: Table
    nested: dict[str, np.ndarray]
    """Candidate -> (rows, classes) level-2 nested predictions."""
    chosen: str


def compare(
    oof: Table, members: list[str], candidates: tuple[str, ...], competition: Competition, threads: int, seed: int
) -> Comparison:
    """Nested predictions of every candidate, and the simplest one within a paired standard error of the best.

    Raises: PodiumError where no row is covered by all members.
    """
    table = oof.covered_by(members)
    if not len(table.labels):
        raise PodiumError(f"params.yaml: members {', '.join(members)} train no fold in common, nothing can be stacked")
    parts = table.parts(competition, seed)
    level1 = build_level1([table.probabilities[m] for m in members], table.rows, competition, "lightgbm" in candidates)
    nested = {}
    for name in candidates:
        print(f"stack: {name} on {len(table.labels)} rows in {len(np.unique(parts))} outer folds", flush=True)
        nested[name] = nested_predictions(name, level1, table.labels, parts, competition, threads, seed)
    metric = METRICS[competition.metric]
    sign = -1.0 if metric.greater_is_better else 1.0
    losses = {name: sign * metric.per_row(table.labels, each) for name, each in nested.items()}
    return Comparison(table, nested, simplest_of_the_best(losses))


def climb(oof: Table, members: list[str], chosen: str, competition: Competition, threads: int, seed: int) -> Ladder:
    """The ladder: the prior, then a stacker for each prefix of `members`, with the chosen one for the full set."""
    prior = np.bincount(oof.labels, minlength=len(competition.classes)) / len(oof.labels)
    rungs = [Rung(PRIOR, (), None)]
    for count in range(1, len(members) + 1):
        here, name = members[:count], chosen if count == len(members) else ON_THE_WAY
        table = oof.covered_by(here)
        level1 = build_level1([table.probabilities[m] for m in here], table.rows, competition, name == "lightgbm")
        parts = table.parts(competition, seed)
        model = fit(name, level1, table.labels, parts, competition, threads, seed)
        rungs.append(Rung("+".join(here), tuple(here), model))
    return Ladder(tuple(rungs), tuple(prior.tolist()), competition)


def calibrate(ladder: Ladder, holdout: Table | None, seed: int) -> tuple[Ladder, np.ndarray | None]:
    """The ladder with each rung's temperature, and the full set's cross-fitted probabilities on the holdout.

    Each half of the holdout is scored under the temperature that the other half gave; the kernel gets the one that
    all of it gives.
    """
    if holdout is None:
        return ladder, None
    competition = ladder.competition
    halves = assign_folds(group_keys(holdout.rows, competition.kind), holdout.labels, 2, 0.0, seed)
    rungs, crossed = [], None
    for rung in ladder.rungs:
        if rung.model is None:
            rungs.append(rung)
            continue
        needed = {name: holdout.probabilities[name] for name in rung.members}
        plain, _ = replace(ladder, rungs=(rung,)).predict(needed, holdout.rows)
        rungs.append(replace(rung, temperature=fit_temperature(holdout.labels, plain)))
        crossed = cross_fitted(holdout.labels, plain, halves)
    return replace(ladder, rungs=tuple(rungs)), crossed
