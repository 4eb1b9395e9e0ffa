"""Which classes a row's group allows, where the competition's YAML says that a field tells: `candidates: question`.

Of 65 misconceptions a question has ten. Every fold model keeps, for each text of that field among its own training
rows, the classes that it came with; what it answers is drawn to these. A class that was never seen there gets what a
new row has one with: the share of the training rows whose class their group has only once (Good 1953, "The population
frequencies of species and the estimation of population parameters"). A text that is new allows every class.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.rows import joined_turns
from pipeline.files import read_json, write_json

FILE = "candidates.json"


@dataclass(frozen=True)
class Candidates:
    """The classes of each group of some training rows."""

    field: str
    seen: dict[str, list[int]]
    """Hash of the field's text -> the classes that it came with, in order."""
    unseen: float
    """The share of new rows that have another class than these."""

    @classmethod
    def of(cls, rows: pl.DataFrame, competition: Competition) -> Candidates:
        """Returns the candidates that the labels of training rows show."""
        table = pl.DataFrame({"key": _keys(rows, competition.candidates), "label": rows["label"]})
        counts = table.group_by("key", "label").len().sort("key", "label")
        once = int((counts["len"] == 1).sum())
        # Beside the singletons one row more, half of whose class is not known: neither 0 nor 1 is ever certain.
        unseen = (once + 0.5) / (len(rows) + 1)
        grouped = counts.group_by("key", maintain_order=True).agg("label")
        return cls(competition.candidates, dict(grouped.iter_rows()), unseen)

    def save(self, folder: Path) -> None:
        """Writes them beside the fold model."""
        write_json(folder / FILE, {"field": self.field, "unseen": self.unseen, "seen": self.seen})

    @classmethod
    def load(cls, folder: Path) -> Candidates:
        """Returns what `save` wrote."""
        return cls(**read_json(folder / FILE))

    def applied(self, rows: pl.DataFrame, answers: np.ndarray) -> np.ndarray:
        """Returns the (rows, classes) probabilities drawn to each row's candidates; NaN stays NaN.

        Within the candidates, and within the others, classes keep their proportions.
        """
        classes = answers.shape[1]
        allowed = np.ones((len(rows), classes), dtype=bool)
        for row, key in enumerate(_keys(rows, self.field)):
            if key in self.seen:
                allowed[row] = False
                allowed[row, self.seen[key]] = True
        inside = np.where(allowed, answers, 0.0)
        outside = np.where(allowed, 0.0, answers)
        within, without = inside.sum(axis=1, keepdims=True), outside.sum(axis=1, keepdims=True)
        limited = ~allowed.all(axis=1, keepdims=True) & (within > 0) & (without > self.unseen)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = inside / within * (1 - self.unseen) + outside / without * self.unseen
        return np.where(limited, drawn, answers)


def _keys(rows: pl.DataFrame, field: str) -> list[str]:
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in joined_turns(rows, field)]
