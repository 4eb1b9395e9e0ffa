"""Predictions from the steps that have run: averages over fold models, stacked by the rungs that these allow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from pipeline.competitions.decision import PLAIN
from pipeline.competitions.family import Family, average
from pipeline.competitions.task import Competition
from pipeline.data.features import text_features
from pipeline.ensemble.ladder import LAST_RESORT, PRIOR, Ladder
from pipeline.inference.passes import combined
from pipeline.planning.gain import averaged_share
from pipeline.planning.steps import Members, Step


@dataclass
class Results:
    """All predictions of fold models so far, and the submission's means that follow from them."""

    rows: pl.DataFrame
    """id and text fields of the rows to predict."""
    competition: Competition
    members: Members
    ladder: Ladder | None
    """Where it is None, the equal mean of all members is used."""
    values: dict[Step, np.ndarray] = field(default_factory=dict)
    """Step -> (rows, outputs) means; NaN where it has not answered."""
    _averages: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, init=False)
    _features: pl.DataFrame | None = field(default=None, init=False)

    def add(self, step: Step, rows: np.ndarray, values: np.ndarray) -> None:
        """Adds a chunk: values (chunk rows, outputs) of the row numbers `rows`."""
        if step not in self.values:
            self.values[step] = np.full((len(self.rows), len(self.competition.outputs)), np.nan)
        self.values[step][rows] = values
        self._averages.pop(step.member, None)

    def decided(self, means: np.ndarray, names: list[str]) -> np.ndarray:
        """Returns the labels that `means` become, each row's by the rung of that name."""
        return self.ladder.decide(means, names) if self.ladder else PLAIN.apply(means, self.competition)

    def means(self) -> tuple[np.ndarray, list[str]]:
        """Returns (rows, outputs) means, NaN where nothing has answered, and the name of each row's rung."""
        available, averaged = {}, {}
        for name in self.members:
            if any(step.member == name for step in self.values):
                if name not in self._averages:
                    self._averages[name] = self._average(name)
                available[name], averaged[name] = self._averages[name]
        if not available:
            return np.full((len(self.rows), len(self.competition.outputs)), np.nan), [PRIOR] * len(self.rows)
        if self.ladder is None:
            mean = average_answered(list(available.values()), self.competition.family)
            return mean, np.where(np.isfinite(mean).all(axis=1), LAST_RESORT, PRIOR).tolist()
        return self.ladder.predict(available, self.rows, averaged, self._features)

    def prepare(self) -> None:
        """Computes the rows' text features where a rung asks for them; that may take longer than all the rest."""
        if self.ladder and any(rung.wants_features for rung in self.ladder.rungs):
            self._features = text_features(self.rows, self.competition.kind)

    def _average(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a member's (rows, outputs) average, and (rows,) how far it is from one fold model (0) to all (1)."""
        member = self.members[name]
        parts: dict[int, dict[str, np.ndarray]] = {}
        for step, values in self.values.items():
            if step.member == name:
                parts.setdefault(step.fold, {})[step.which] = values
        each = [combined(parts[fold]) for fold in sorted(parts)]
        counts = np.sum([np.isfinite(one).all(axis=1) for one in each], axis=0)
        shares = np.array([averaged_share(count, len(member["folds"])) for count in range(len(each) + 1)])[counts]
        if (first := member["folds"][0]) in parts:  # one that is an average already stands for several
            has = np.isfinite(combined(parts[first])).all(axis=1)
            shares = np.where(has, np.maximum(shares, member.get("averaged", 0.0)), shares)
        return average_answered(each, self.competition.family), shares


def average_answered(parts: list[np.ndarray], family: Family) -> np.ndarray:
    """Returns the average of (rows, outputs) means, for each row over those that are finite there."""
    finite = np.stack([np.isfinite(part).all(axis=1) for part in parts], axis=1)
    result = np.full_like(parts[0], np.nan)
    for pattern in np.unique(finite, axis=0):
        rows = (finite == pattern).all(axis=1)
        if pattern.any():
            result[rows] = average(family, [part[rows] for part, has in zip(parts, pattern, strict=True) if has])
    return result
