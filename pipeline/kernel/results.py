"""What the finished work says: averages over fold models, stacked by the rungs that the present members allow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.features import text_features
from pipeline.ensemble.ladder import LAST_RESORT, PRIOR, Ladder
from pipeline.ensemble.logits import geometric_mean
from pipeline.inference.passes import combined
from pipeline.planning.gain import averaged_share
from pipeline.planning.steps import Step


@dataclass
class Answers:
    """All results so far, and what they come to."""

    rows: pl.DataFrame
    """id and text fields of the rows to answer."""
    competition: Competition
    members: dict[str, dict[str, Any]]
    """As in the manifest."""
    ladder: Ladder | None
    """None: the equal mean of all members is used."""
    values: dict[Step, np.ndarray] = field(default_factory=dict)
    """(rows, classes) per step; NaN where it has not answered."""

    def __post_init__(self) -> None:
        self._averages: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._features: pl.DataFrame | None = None

    def add(self, step: Step, rows: np.ndarray, values: np.ndarray) -> None:
        """Takes in a chunk: values (chunk rows, classes) for the row numbers `rows`."""
        if step not in self.values:
            self.values[step] = np.full((len(self.rows), len(self.competition.classes)), np.nan)
        self.values[step][rows] = values
        self._averages.pop(step.member, None)

    def probabilities(self) -> tuple[np.ndarray, list[str]]:
        """(rows, classes) probabilities and (rows,) the rung that has answered each; NaN where nothing has."""
        available, averaged = {}, {}
        for name, member in self.members.items():
            if any(step.member == name for step in self.values):
                if name not in self._averages:
                    self._averages[name] = self._average(name, len(member["folds"]))
                available[name], averaged[name] = self._averages[name]
        if not available:
            return np.full((len(self.rows), len(self.competition.classes)), np.nan), [PRIOR] * len(self.rows)
        if self.ladder is None:
            mean = average(list(available.values()))
            return mean, np.where(np.isfinite(mean).all(axis=1), LAST_RESORT, PRIOR).tolist()
        return self.ladder.predict(available, self.rows, averaged, self._features)

    def prepare(self) -> None:
        """Computes the rows' text features, where a rung asks for them: it may take longer than all the rest."""
        if self.ladder and any(rung.wants_features for rung in self.ladder.rungs):
            self._features = text_features(self.rows, self.competition.kind)

    def _average(self, name: str, folds: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, classes) average over a member's fold models, and (rows,) how far it is from one model to all."""
        parts: dict[int, dict[str, np.ndarray]] = {}
        for step, values in self.values.items():
            if step.member == name:
                parts.setdefault(step.fold, {})[step.which] = values
        each = [combined(parts[fold]) for fold in sorted(parts)]
        counts = np.sum([np.isfinite(one).all(axis=1) for one in each], axis=0)
        shares = np.array([averaged_share(count, folds) for count in range(len(each) + 1)])
        return average(each), shares[counts]


def average(parts: list[np.ndarray]) -> np.ndarray:
    """The average of (rows, classes) predictions; a row to which some have no answer is left to the others."""
    finite = np.stack([np.isfinite(part).all(axis=1) for part in parts], axis=1)
    result = np.full_like(parts[0], np.nan)
    for pattern in np.unique(finite, axis=0):
        rows = (finite == pattern).all(axis=1)
        if pattern.any():
            result[rows] = geometric_mean([part[rows] for part, has in zip(parts, pattern, strict=True) if has])
    return result
