"""Small fold models of networks, trained for a test."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from networks import start_of

from pipeline.competitions.task import Competition
from pipeline.data.folds import split_rows
from pipeline.members.fold import train_fold

ROWS = 40
FOLDS = np.repeat([0, 1, -1], [12, 20, 8])


def trained(artifacts: Path, settings: dict[str, Any], competition: Competition, fold: int = 0) -> Path:
    """The folder of a trained fold model `mine`."""
    start = start_of("mine", settings, competition, artifacts)
    kind = import_module(f"pipeline.members.{settings['kind']}")
    rows, folds = (pl.read_parquet(artifacts / name) for name in ("competition/train.parquet", "folds.parquet"))
    assert train_fold(kind, split_rows(rows, folds, fold), start, fold, artifacts) is not None
    return artifacts / "members" / "mine" / f"fold{fold}"


def asked(artifacts: Path, fold: int = 0) -> pl.DataFrame:
    return pl.read_parquet(artifacts / "competition/train.parquet").filter(pl.Series(fold == FOLDS))
