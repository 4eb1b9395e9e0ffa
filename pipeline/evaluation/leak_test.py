"""The leak test of each member: are its out-of-fold predictions better than what the same fold models say of new rows?

A fold model has seen neither its own fold nor the holdout, so it must do as well on both. Where it does better on its
fold, that fold was not left out: a row's twin stood among the training rows, a target was made from the fold's labels,
or a teammate's file is in-sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from pipeline.competitions.task import Competition
from pipeline.ensemble.table import Holdout, Table

FALSE_ALARMS = 0.01
"""Chance that at least one of a set of clean members is accused (Bonferroni over all comparisons made)."""


@dataclass(frozen=True)
class LeakTest:
    """A member's mean loss on the holdout minus that on its own folds, single fold models on both."""

    gap: float
    """In the loss of its answers, positive where the out-of-fold rows look easier; classes in equal shares on both."""
    error: float
    """The standard error of `gap`, clustered by group."""
    relative: float | None
    """`gap` of the member's loss minus the median of the other members' losses on the row, which takes away how
    hard the rows are and finds a single leak sooner; None for a single member."""
    relative_error: float | None
    leak: bool

    @property
    def strongest(self) -> tuple[float, float]:
        """The gap, plain or relative, that lies further from zero in its errors, and this error."""
        pairs = [(self.gap, self.error)]
        if self.relative is not None and self.relative_error is not None:
            pairs.append((self.relative, self.relative_error))
        return max(pairs, key=lambda pair: pair[0] / pair[1])


def leak_test(oof: Table, holdout: Holdout | None, members: list[str], competition: Competition) -> dict[str, LeakTest]:
    """Returns the test of every member that has answered the holdout; nothing without one.

    Errors are clustered by group. The classes' shares, which are pure chance, are taken out by regression.
    """
    if holdout is None:
        return {}
    # Both sides must be measured alike. Out of fold a row has the answer of one fold model, so on the holdout each fold
    # model is scored alone, and their losses are averaged: the average of the models would lose less, which looks like
    # the opposite of a leak and would hide one. So with the other members' median, which is taken per fold model. It is
    # no mean, since one leaking member would pull that down, and clean ones would look worse out of fold than they are.
    labels = competition.family.strata(np.concatenate([oof.labels, holdout.average.labels]))
    is_oof = np.arange(len(labels)) < len(oof.labels)
    own = oof.groups(competition)
    groups = np.concatenate([own, holdout.average.groups(competition) + own.max() + 1])
    seen = {name: _losses(oof, name, competition) for name in members}
    unseen = {
        name: np.stack([_losses(table, name, competition) for table in holdout.single.values()]) for name in members
    }
    # A member is compared up to twice and judged by the stronger of the two, and all comparisons share the false
    # alarms. The limit is one-sided: what looks harder out of fold than on new rows is no leak.
    comparisons = len(members) * (2 if len(members) > 1 else 1)
    limit = float(norm.isf(FALSE_ALARMS / comparisons))
    found = {}
    for name in members:
        plain = _compared(np.concatenate([seen[name], _mean(unseen[name])]), labels, is_oof, groups)
        if plain is None:
            continue
        relative: tuple[float, float] | None = None
        others = [other for other in members if other != name]
        if others:
            difference = seen[name] - _median([seen[other] for other in others])
            unseen_difference = _mean(unseen[name] - _median([unseen[other] for other in others]))
            relative = _compared(np.concatenate([difference, unseen_difference]), labels, is_oof, groups)
        relative_gap, relative_error = relative or (None, None)
        gap = LeakTest(plain[0], plain[1], relative_gap, relative_error, leak=False)
        found[name] = replace(gap, leak=gap.strongest[0] > limit * gap.strongest[1])
    return found


def _losses(table: Table, member: str, competition: Competition) -> np.ndarray:
    """Returns the loss of each row, (rows,), NaN where the member does not cover it."""
    return competition.family.losses(table.labels, table.probabilities[member])


def _mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean (rows,) of (models, rows) over the models that have answered."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _median(values: list[np.ndarray]) -> np.ndarray:
    """Returns the median of the members that have answered; NaN where none has."""
    stacked = np.ma.masked_invalid(np.stack(values))
    return np.ma.median(stacked, axis=0).filled(np.nan)


def _compared(
    values: np.ndarray, labels: np.ndarray, is_oof: np.ndarray, groups: np.ndarray
) -> tuple[float, float] | None:
    """Returns the mean on the holdout minus that on the out-of-fold rows, and its standard error; None where there is
    nothing to compare, or nothing that varies. `labels` (rows,) are strata, whose shares are taken to be equal on both.

    Least squares on one column per class and one for the holdout; the error is the sandwich estimator's, clustered by
    `groups` (Liang and Zeger 1986).
    """
    known = np.isfinite(values)
    values, labels, is_oof, groups = values[known], labels[known], is_oof[known], groups[known]
    if is_oof.all() or not is_oof.any():
        return None
    # One class is easier than another, and the holdout has drawn its own share of each. With a column per class, and no
    # other intercept, the holdout's column explains differences between rows of one class alone. The pseudo-inverse
    # answers, too, where the two sides have no class in common.
    classes = np.unique(labels)
    design = np.concatenate([labels[:, None] == classes, ~is_oof[:, None]], axis=1).astype(np.float64)
    inverse = np.linalg.pinv(design.T @ design)
    weights = inverse @ (design.T @ values)
    codes = np.unique(groups, return_inverse=True)[1]
    # A coefficient's error is the sum over rows of (row of the design @ inverse) * residual. Rows that share a prompt
    # err together, so these terms are summed within groups, and the groups, which are independent, add up in squares.
    # The factor G / (G - 1) makes up for few groups. Nothing here takes the noise to be equal on both sides.
    pulls = np.bincount(codes, weights=(design @ inverse[:, -1]) * (values - design @ weights))
    error = float(np.sqrt((pulls**2).sum() * len(pulls) / max(len(pulls) - 1, 1)))
    return (float(weights[-1]), error) if error > 0 else None
