"""Trains one fold of a `tabular` member: TF-IDF and text features, fitted on the fold's training rows alone."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.folds import Split
from pipeline.members.context import Run, Start
from pipeline.models.tabular.model import fit_tabular
from pipeline.settings.tabular import Tabular


def train(split: Split, start: Start, folder: Path, run: Run) -> None:
    """Fits the model that `start` describes and saves it into `folder`; it takes seconds and keeps no checkpoint."""
    assert isinstance(start.settings, Tabular)
    labels = split.train["label"].to_numpy()
    fit_tabular(split.train, labels, start.settings, start.competition, start.threads).save(folder)
