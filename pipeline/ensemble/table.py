"""Rows of the second level with their texts, labels and members' probabilities, read from the oof stage's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.folds import assign_folds, group_keys
from pipeline.ensemble.logits import geometric_mean

FEWEST_PARTS = 3
"""Outer folds below this leave no inner folds to tune on; the rows are then parted anew."""


@dataclass(frozen=True)
class Table:
    """Some rows with all that the second level may know of them."""

    rows: pl.DataFrame
    """id, fold and the text fields."""
    labels: np.ndarray
    """(rows,) class indices."""
    probabilities: dict[str, np.ndarray]
    """Member -> (rows, classes); NaN where the member does not cover a row."""

    def covers(self, members: list[str]) -> np.ndarray:
        """(rows,) which rows every one of `members` covers."""
        return np.all([np.isfinite(self.probabilities[name]).all(axis=1) for name in members], axis=0)

    def covered_by(self, members: list[str]) -> Table:
        """The rows that every one of `members` covers."""
        mask = self.covers(members)
        chosen = {name: each[mask] for name, each in self.probabilities.items()}
        return Table(self.rows.filter(pl.Series(mask)), self.labels[mask], chosen)

    def parts(self, competition: Competition, seed: int) -> np.ndarray:
        """(rows,) outer parts of the nested scores: the folds, or parts grouped anew where there are too few."""
        folds = self.rows["fold"].to_numpy()
        if len(np.unique(folds)) >= FEWEST_PARTS:
            return folds
        return assign_folds(group_keys(self.rows, competition.kind), self.labels, FEWEST_PARTS + 1, 0.0, seed)

    def groups(self, competition: Competition) -> np.ndarray:
        """(rows,) integers, equal where two rows share their first prompt."""
        return group_keys(self.rows, competition.kind).rank("dense").to_numpy()


def read_oof(artifacts: Path, members: list[str], competition: Competition) -> Table:
    """The rows outside the holdout with their out-of-fold predictions."""
    frame = pl.read_parquet(artifacts / "oof" / "oof.parquet")
    texts = pl.read_parquet(artifacts / "competition" / "train.parquet").drop("label")
    rows = frame.select("id", "fold").join(texts, on="id", how="left", maintain_order="left")
    return Table(rows, frame["label"].to_numpy(), {name: _columns(frame, name, competition) for name in members})


@dataclass(frozen=True)
class Holdout:
    """The rows that no member and no stacker has seen, as the fold models answer them."""

    average: Table
    """Each member's fold models averaged, as the kernel will do it."""
    single: dict[int, Table]
    """Fold -> what the fold models that left it out say alone; NaN for a member that did not train it."""


def read_holdout(artifacts: Path, members: list[str], competition: Competition) -> Holdout | None:
    """The holdout, or None without one."""
    frame = pl.read_parquet(artifacts / "oof" / "holdout.parquet")
    if not len(frame):
        return None
    texts = pl.read_parquet(artifacts / "competition" / "train.parquet").drop("label")
    single = {}
    for (model,), part in frame.group_by("model", maintain_order=True):
        rows = part.select("id", pl.lit(0).alias("fold")).join(texts, on="id", how="left", maintain_order="left")
        probabilities = {name: _columns(part, name, competition) for name in members}
        single[int(model)] = Table(rows, part["label"].to_numpy(), probabilities)
    first = next(iter(single.values()))
    averages = {}
    for name in members:
        each = [table.probabilities[name] for table in single.values()]
        averages[name] = geometric_mean([one for one in each if np.isfinite(one).all()] or each[:1])
    return Holdout(Table(first.rows, first.labels, averages), single)


def read_truth(artifacts: Path, table: Table, competition: Competition) -> np.ndarray | None:
    """(rows, classes) true probabilities of the table's rows where the data was generated, else None."""
    file = artifacts / "competition" / "truth.parquet"
    if not file.exists():
        return None
    joined = table.rows.select("id").join(pl.read_parquet(file), on="id", how="left", maintain_order="left")
    return joined.select(list(competition.classes)).to_numpy()


def _columns(frame: pl.DataFrame, member: str, competition: Competition) -> np.ndarray:
    return frame.select(f"{member}/{name}" for name in competition.classes).to_numpy().astype(np.float64)
