from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import preference_rows

from pipeline.competitions.task import Competition
from pipeline.config import Tabular
from pipeline.models.tabular import fit_tabular
from pipeline.training import fold as folds
from pipeline.training.fold import swap_difference


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return preference_rows(200, seed=2)


@pytest.fixture(scope="module")
def member(rows: pl.DataFrame, lmsys: Competition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Tabular.model_validate({"kind": "tabular", "model": "logistic"}).model_dump(mode="json")
    folder = tmp_path_factory.mktemp("member")
    fit_tabular(rows, rows["label"].to_numpy(), settings, lmsys, 1).save(folder)
    return folder


def test_a_model_that_treats_both_sides_alike_shows_no_difference(
    member: Path, rows: pl.DataFrame, lmsys: Competition
) -> None:
    found = swap_difference(member, rows, "tabular", lmsys)
    assert found is not None
    assert found < 1e-9


def test_a_model_that_prefers_a_side_shows_how_much(
    member: Path, rows: pl.DataFrame, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaning = np.array([0.5, 0.3, 0.2])
    monkeypatch.setattr(folds, "predict_member", lambda folder, rows, competition: np.tile(leaning, (len(rows), 1)))
    assert swap_difference(member, rows, "tabular", lmsys) == pytest.approx(0.2)


def test_there_is_nothing_to_swap_without_sides_rows_or_texts(
    member: Path, rows: pl.DataFrame, lmsys: Competition, spooky: Competition
) -> None:
    assert swap_difference(member, rows, "tabular", spooky) is None
    assert swap_difference(member, rows.head(0), "tabular", lmsys) is None
    assert swap_difference(member, rows, "external", lmsys) is None
