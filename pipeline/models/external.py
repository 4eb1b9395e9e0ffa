"""Predictions that came as a file: they answer for the ids that they hold, and are NaN for every other row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.files import write_parquet
from pipeline.models.saved import save_member
from pipeline.settings.external import External

PREDICTIONS = "predictions.parquet"


def save_external(predictions: pl.DataFrame, settings: External, competition: Competition, folder: Path) -> None:
    """Writes `predictions` (id and one Float64 column per output) as a member's fold model."""
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(predictions, folder / PREDICTIONS)
    save_member(folder, settings, competition)


@dataclass(frozen=True)
class ExternalModel:
    """What somebody else's model says, by id."""

    known: pl.DataFrame
    """id and one column per output."""
    outputs: tuple[str, ...]

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """Returns (rows, outputs) means by id; a row whose id is unknown is NaN."""
        joined = rows.select("id").join(self.known, on="id", how="left", maintain_order="left")
        return joined.select(self.outputs).to_numpy().astype(np.float64)


def load_external(folder: Path, competition: Competition) -> ExternalModel:
    """Returns what `save_external` wrote."""
    return ExternalModel(pl.read_parquet(folder / PREDICTIONS), competition.outputs)
