"""Trains one fold of a `tabular` member: TF-IDF and text features, fitted on the fold's training rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.competitions.task import competition_from_json
from pipeline.data.folds import Split
from pipeline.members.context import Run
from pipeline.models.tabular.model import fit_tabular


def train(split: Split, start: dict[str, Any], folder: Path, run: Run) -> None:
    """Fits the model that `start` describes and saves it into `folder`; it takes seconds and keeps no checkpoint."""
    competition = competition_from_json(start["competition"])
    labels = split.train["label"].to_numpy()
    fit_tabular(split.train, labels, start["settings"], competition, start["threads"]).save(folder)
