"""Predictions that came as a file: they answer for the ids that they hold, and are NaN for every other row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.files import write_json, write_parquet

PREDICTIONS = "predictions.parquet"


def save_external(predictions: pl.DataFrame, folder: Path) -> None:
    """Writes `predictions` (id and one Float64 column per class) as a member's fold model."""
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(predictions, folder / PREDICTIONS)
    write_json(folder / "member.json", {"kind": "external", "trained": True})


def predict_external(folder: Path, rows: pl.DataFrame, competition: Competition) -> np.ndarray:
    """(rows, classes) probabilities by id; a row whose id is unknown is NaN."""
    known = pl.read_parquet(folder / PREDICTIONS)
    joined = rows.select("id").join(known, on="id", how="left", maintain_order="left")
    return joined.select(list(competition.classes)).to_numpy().astype(np.float64)
