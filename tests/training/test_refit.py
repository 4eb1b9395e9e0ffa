from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from support import preference_rows

from pipeline.competitions.task import Competition
from pipeline.config import Tabular
from pipeline.data.folds import Split
from pipeline.files import read_json, sha256_file
from pipeline.inference.predict import predict_member
from pipeline.training import tabular
from pipeline.training.refit import PARITY_ROWS, refit


@pytest.fixture
def start(lmsys: Competition) -> dict[str, Any]:
    settings = Tabular.model_validate({"kind": "tabular", "model": "logistic"}).model_dump(mode="json")
    return {"member": "m", "settings": settings, "competition": asdict(lmsys), "threads": 1}


def test_it_learns_from_every_row_and_keeps_what_it_says(
    start: dict[str, Any], lmsys: Competition, tmp_path: Path
) -> None:
    rows, seen = preference_rows(120, seed=1), []

    def train(split: Split, start: dict[str, Any], folder: Path) -> None:
        seen.append(split)
        tabular.train(split, start, folder)

    assert refit(SimpleNamespace(train=train), rows, start, True, tmp_path / "m")  # type: ignore[arg-type]
    assert seen[0].train.equals(rows)
    said = pl.read_parquet(tmp_path / "m/parity.parquet")
    assert len(said) == PARITY_ROWS
    asked = said.select("id").join(rows, on="id", maintain_order="left")
    again = predict_member(tmp_path / "m/model", asked, lmsys)
    assert np.array_equal(again, said.select(lmsys.classes).to_numpy())


def test_it_is_the_same_each_time(start: dict[str, Any], tmp_path: Path) -> None:
    rows = preference_rows(120, seed=1)
    for name in ("one", "two"):
        refit(tabular, rows, start, True, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) >= 4
    for file in files:
        assert sha256_file(tmp_path / "one" / file) == sha256_file(tmp_path / "two" / file)


@pytest.mark.parametrize(("kind", "wanted"), [("tabular", False), ("external", True)])
def test_where_there_is_nothing_to_train_it_says_so(
    kind: str, wanted: bool, start: dict[str, Any], lmsys: Competition, tmp_path: Path
) -> None:
    start["settings"]["kind"] = kind
    assert not refit(tabular, preference_rows(20), start, wanted, tmp_path / "m")
    assert read_json(tmp_path / "m/model/member.json") == {"kind": kind, "trained": False}
    said = pl.read_parquet(tmp_path / "m/parity.parquet")
    assert said.columns == ["id", *lmsys.classes]
    assert len(said) == 0
