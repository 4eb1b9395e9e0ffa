"""The fold models of a network member averaged into one: one pass in place of K, and what that costs in loss.

make average MEMBER=judge

It has learned every row but the holdout, which alone can tell its loss: out-of-fold there is nothing to measure.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.family import Family, average
from pipeline.config import Params
from pipeline.data.folds import group_keys
from pipeline.ensemble.uncertainty import cluster_error
from pipeline.errors import PodiumError
from pipeline.experiments.tries import check_member
from pipeline.members.average import answers_of_average, averageable


@dataclass(frozen=True)
class Way:
    """One way to answer, on the holdout."""

    name: str
    passes: float
    """Of the network over a row."""
    losses: np.ndarray
    """(rows,) in nats."""


@dataclass(frozen=True)
class Averages:
    """What was measured; the mean of the fold models' answers is the measure."""

    lines: list[Way]
    """Every fold model, the mean of their answers, the average of their weights, the greedy soup."""
    groups: np.ndarray
    """(rows,) int from 0: which rows are not independent."""
    constant: float
    """The mean loss of the constant predictor of the rows that were learned."""

    @property
    def mean(self) -> Way:
        """That of the fold models' answers."""
        return next(each for each in self.lines if each.passes > 1)

    def error(self, line: Way) -> float:
        """Returns the clustered standard error of what a line loses more than the mean."""
        return cluster_error(line.losses - self.mean.losses, self.groups)


def compare(name: str, params: Params, artifacts: Artifacts) -> Averages:
    """Returns the losses of a member's fold models on the holdout: alone, together, and averaged.

    Raises: PodiumError for a member that cannot be averaged, or where there is no holdout to measure by.
    """
    check_member(name, params)
    folders = averageable(name, params.members[name], params.folds.ids, artifacts)
    rows = artifacts.train().collect()
    folds = artifacts.folds()["fold"]
    held, learned = rows.filter(folds == HOLDOUT), rows.filter(folds != HOLDOUT)
    if not len(held):
        raise PodiumError(
            "folds.holdout: expected a share above 0: the average has learned all other rows, so nothing else can tell "
            "its loss"
        )
    competition = artifacts.competition()
    family, labels = competition.family, held["label"].to_numpy()
    parts = [
        pl.read_parquet(artifacts.holdout_part(name, fold)).select(competition.outputs).to_numpy() for fold in folders
    ]
    groups = group_keys(held, competition.kind).rank("dense").to_numpy() - 1
    if groups.max() < 1:
        raise PodiumError("folds.holdout: expected two groups of rows or more in the holdout, found one: give it more")
    with tempfile.TemporaryDirectory(prefix="podium-average-") as folder:
        known: dict[tuple[int, ...], np.ndarray] = {(place,): part for place, part in enumerate(parts)}

        def answers(chosen: tuple[int, ...]) -> np.ndarray:
            chosen = tuple(sorted(chosen))
            if chosen not in known:
                target = Path(folder) / "-".join(map(str, chosen))
                several = [list(folders.values())[place] for place in chosen]
                known[chosen] = answers_of_average(several, held, learned, artifacts, target)
                shutil.rmtree(target)
            return known[chosen]

        lines = [Way(f"fold {fold}", 1, family.losses(labels, part)) for fold, part in zip(folders, parts, strict=True)]
        lines.append(Way("mean of their answers", len(parts), family.losses(labels, average(family, parts))))
        whole = answers(tuple(range(len(parts))))
        lines.append(Way("average of their weights", 1, family.losses(labels, whole)))
        soup = greedy(answers, len(parts), labels, groups, family)
        lines.append(Way("greedy soup of them", 1, soup))
    prior = np.tile(family.prior(learned["label"].to_numpy()), (len(held), 1))
    return Averages(lines, groups, float(family.losses(labels, prior).mean()))


def greedy(
    answers: Callable[[tuple[int, ...]], np.ndarray], count: int, labels: np.ndarray, groups: np.ndarray, family: Family
) -> np.ndarray:
    """Returns the losses (rows,) of greedy soups: those of each half of the groups by what the other half has chosen.

    The best of `count` models takes in the others, the better ones first, where the average's loss does not rise
    (Wortsman et al. 2022); `answers` gives what the average of some of them says of all rows, (rows, outputs).
    """
    half = np.random.default_rng(0).permutation(int(groups.max()) + 1)[groups] % 2 == 0
    losses = np.empty(len(labels))
    for chosen_by in (half, ~half):

        def loss(of: tuple[int, ...], by: np.ndarray = chosen_by) -> float:
            return float(family.losses(labels[by], answers(of)[by]).mean())

        order = sorted(range(count), key=lambda each: loss((each,)))
        soup: tuple[int, ...] = (order[0],)
        for each in order[1:]:
            if loss((*soup, each)) <= loss(soup):
                soup = (*soup, each)
        losses[~chosen_by] = family.losses(labels[~chosen_by], answers(soup)[~chosen_by])
    return losses


def table(found: Averages) -> str:
    """Returns a line per way to answer, for the terminal."""
    lines = [("", "passes", "loss", "more than the mean", "error")]
    for each in found.lines:
        more = each.losses.mean() - found.mean.losses.mean()
        apart = ("", "") if each is found.mean else (f"{more:+.4f}", f"{found.error(each):.4f}")
        lines.append((each.name, f"{each.passes:g}", f"{each.losses.mean():.4f}", *apart))
    return "\n".join(f"{name:<25}" + "".join(f"{value:>20}" for value in values) for name, *values in lines)
