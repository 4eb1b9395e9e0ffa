"""What a fold's training asks its model beside the fold: the same rows with their sides exchanged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from support import preference_rows, write_artifacts, write_external

from pipeline.competitions.task import Competition
from pipeline.config import Tabular
from pipeline.data.folds import split_rows
from pipeline.files import read_json, write_json
from pipeline.members import external, tabular
from pipeline.members import fold as folds
from pipeline.members.fold import swap_difference, train_fold

ROWS = preference_rows(120, seed=2)


@pytest.fixture
def artifacts(lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_artifacts(tmp_path, ROWS, lmsys, np.arange(len(ROWS)) // 2 % 4 - 1)


def told(artifacts: Path, kind: Any, start: dict[str, Any]) -> Any:
    """The `swap` of the receipt of fold 0."""
    write_json(artifacts / "start/m.json", start)
    train_fold(kind, split_rows(ROWS, pl.read_parquet(artifacts / "folds.parquet"), 0), start, 0, artifacts)
    return read_json(artifacts / "receipts/m-fold0.json")["swap"]


@pytest.fixture
def start(lmsys: Competition) -> dict[str, Any]:
    about = {"kind": "tabular", "backbone": "none", "model": "logistic"}
    settings = Tabular.model_validate(about).model_dump(mode="json")
    return {"member": "m", "settings": settings, "competition": asdict(lmsys), "threads": 1}


def test_a_model_that_treats_both_sides_alike_shows_no_difference(artifacts: Path, start: dict[str, Any]) -> None:
    assert 0.0 <= told(artifacts, tabular, start) < 1e-9


def test_a_model_that_prefers_a_side_shows_how_much(
    artifacts: Path, start: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaning = np.array([0.5, 0.3, 0.2])
    monkeypatch.setattr(folds, "predict_member", lambda folder, rows, *others: np.tile(leaning, (len(rows), 1)))
    assert told(artifacts, tabular, start) == pytest.approx(0.2)


def test_a_file_of_predictions_cannot_be_asked_again(artifacts: Path, lmsys: Competition) -> None:
    start = write_external(artifacts.parent, "m", ROWS, lmsys, 1.0)
    assert told(artifacts, external, start) is None


def test_the_difference_is_that_of_the_worst_row_and_class(lmsys: Competition) -> None:
    answers = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2]])
    mirrored = answers[:2, [1, 0, 2]]
    assert swap_difference(answers, mirrored, lmsys) == 0.0
    mirrored[1] = [0.75, 0.1, 0.15]
    assert swap_difference(answers, mirrored, lmsys) == pytest.approx(0.05)
    assert swap_difference(answers, answers[:0], lmsys) is None
