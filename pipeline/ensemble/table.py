"""Rows of the second level with their texts, labels and members' probabilities, read from the oof stage's files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.family import average
from pipeline.competitions.task import Competition
from pipeline.data.folds import FEWEST_PARTS, assign_folds, group_keys


@dataclass(frozen=True)
class Table:
    """Some rows with all that the second level may know of them."""

    rows: pl.DataFrame
    """id, fold and the text fields."""
    labels: np.ndarray
    """(rows,) class indices, or (rows, labels) numbers; NaN where a label is not known."""
    probabilities: dict[str, np.ndarray]
    """Member -> (rows, outputs) means; NaN where the member does not cover a row."""

    def covers(self, members: list[str]) -> np.ndarray:
        """Returns the mask (rows,) of the rows that every one of `members` covers."""
        return np.all([np.isfinite(self.probabilities[name]).all(axis=1) for name in members], axis=0)

    def covered_by(self, members: list[str]) -> Table:
        """Returns the rows that every one of `members` covers."""
        mask = self.covers(members)
        chosen = {name: each[mask] for name, each in self.probabilities.items()}
        return Table(self.rows.filter(pl.Series(mask)), self.labels[mask], chosen)

    def parts(self, competition: Competition, seed: int) -> np.ndarray:
        """Returns the outer parts (rows,) of nested scores: the folds, or parts grouped anew where these are few."""
        folds = self.rows["fold"].to_numpy()
        if len(np.unique(folds)) >= FEWEST_PARTS:
            return folds
        keys = self._keys(competition)
        parts = min(FEWEST_PARTS + 1, keys.n_unique())  # a holdout may be one group, the answers to a single prompt
        return assign_folds(keys, competition.family.strata(self.labels), parts, 0.0, seed)

    def groups(self, competition: Competition) -> np.ndarray:
        """Returns integers (rows,), equal where two rows are of one group, as two answers to one prompt are."""
        return self._keys(competition).rank("dense").to_numpy()

    def _keys(self, competition: Competition) -> pl.Series:
        return group_keys(self.rows, competition.kind)


def read_oof(artifacts: Artifacts, members: list[str], competition: Competition) -> Table:
    """Returns the rows outside the holdout with their out-of-fold predictions."""
    frame = pl.read_parquet(artifacts.oof_file)
    return _table(frame, frame["fold"], artifacts, members, competition)


@dataclass(frozen=True)
class Holdout:
    """The rows that no member and no stacker has seen, as the fold models answer them."""

    average: Table
    """Each member's fold models averaged, as the kernel will do it."""
    single: dict[int, Table]
    """Fold -> what the fold models that left it out say alone; NaN for a member that did not train it."""


def read_holdout(artifacts: Artifacts, members: list[str], competition: Competition) -> Holdout | None:
    """Returns the holdout, or None without one."""
    frame = pl.read_parquet(artifacts.holdout_file)
    if not len(frame):
        return None
    single = {
        int(model): _table(part, pl.lit(0).alias("fold"), artifacts, members, competition)
        for (model,), part in frame.group_by("model", maintain_order=True)
    }
    first = next(iter(single.values()))
    averages = {}
    for name in members:
        each = [table.probabilities[name] for table in single.values()]
        averages[name] = average(competition.family, [one for one in each if np.isfinite(one).all()] or each[:1])
    return Holdout(Table(first.rows, first.labels, averages), single)


def read_truth(artifacts: Artifacts, table: Table, competition: Competition) -> np.ndarray | None:
    """Returns the table's true means (rows, outputs) where the data was generated, else None."""
    if not artifacts.truth_file.exists():
        return None
    truth = pl.read_parquet(artifacts.truth_file)
    joined = table.rows.select("id").join(truth, on="id", how="left", maintain_order="left")
    return joined.select(list(competition.outputs)).to_numpy()


def _table(
    frame: pl.DataFrame, fold: pl.Series | pl.Expr, artifacts: Artifacts, members: list[str], competition: Competition
) -> Table:
    """Returns rows of oof.parquet or holdout.parquet with their texts."""
    texts = artifacts.train().drop("label").collect()
    rows = frame.select("id", fold).join(texts, on="id", how="left", maintain_order="left")
    probabilities = {
        member: frame.select(f"{member}/{name}" for name in competition.outputs).to_numpy().astype(np.float64)
        for member in members
    }
    return Table(rows, frame["label"].to_numpy(), probabilities)
