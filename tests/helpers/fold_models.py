"""Forty rows in two folds and a holdout, and fold models that are trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from networks import start_of

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import split_rows
from pipeline.members.fold import train_fold
from pipeline.settings.finetuning import NetworkSettings

ROWS = 40
FOLDS = np.repeat([0, 1, HOLDOUT], [12, 20, 8])


def trained(artifacts: Artifacts, settings: NetworkSettings, competition: Competition, fold: int = 0) -> Path:
    """The folder of a trained fold model `mine`."""
    start = start_of("mine", settings, competition, artifacts.root)
    split = split_rows(artifacts.train().collect(), artifacts.folds(), fold)
    assert train_fold(split, start, fold, artifacts) is not None
    return artifacts.model("mine", fold)


def asked(artifacts: Artifacts, fold: int = 0) -> pl.DataFrame:
    """The rows of a fold, or of the holdout."""
    return artifacts.train().collect().filter(pl.Series(fold == FOLDS))
