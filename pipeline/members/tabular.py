"""Trains one fold of a `tabular` member: TF-IDF and text features, fitted on the fold's training rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Task
from pipeline.data.split import Extra, Split
from pipeline.members.context import Run, Start
from pipeline.models.tabular.model import fit_tabular
from pipeline.settings.tabular import Tabular


def train(split: Split, start: Start, folder: Path, run: Run) -> None:
    """Fits the model that `start` describes and saves it into `folder`; it takes seconds and keeps no checkpoint."""
    assert isinstance(start.settings, Tabular)
    rows, labels, weights = split.train, split.train["label"].to_numpy(), None
    if (extra := split.extra) is not None:
        labels = np.concatenate([labels, extra.labels])
        weights = np.concatenate([np.ones(len(rows)), extra.weights])
        rows = _with_rows_of(extra, rows, start.competition.kind)
    fit_tabular(rows, labels, start.settings, start.competition, start.threads, weights).save(folder)


def _with_rows_of(extra: Extra, rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns `rows` with those from elsewhere below them, each a group of its own where groups are a column."""
    more = extra.rows
    if task.group is None:
        first = int(rows["group"].cast(pl.Int64).max() or 0) + 1  # type: ignore[arg-type]
        more = more.with_columns(pl.Series("group", first + np.arange(len(more))))
    columns = [*(["group"] if task.group is None else []), *task.fields]
    return pl.concat([each.select(columns) for each in (rows, more)], how="vertical_relaxed")
