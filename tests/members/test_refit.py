from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import preference_rows, write_artifacts

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import Split
from pipeline.files import read_json, sha256_file, write_json
from pipeline.inference.predict import predict_member
from pipeline.members import tabular
from pipeline.members.context import Run, Start
from pipeline.members.refit import PARITY_ROWS, refit
from pipeline.settings.external import External
from pipeline.settings.tabular import Tabular

ROWS = preference_rows(120, seed=1)


@pytest.fixture
def start(lmsys: Competition) -> Start:
    return Start("m", Tabular(kind="tabular", backbone="none", model="logistic"), lmsys, threads=1)


@pytest.fixture
def artifacts(start: Start, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As before a refit; the working folder is that around it, so that checkpoints lie in it too."""
    monkeypatch.chdir(tmp_path)
    found = write_artifacts(tmp_path, ROWS, lmsys, np.arange(len(ROWS)) // 2 % 4 - 1)
    write_json(found / "start/m.json", asdict(start))
    return found


def test_it_learns_from_every_row_and_keeps_what_it_says(
    start: Start, lmsys: Competition, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []
    real = tabular.train

    def train(split: Split, start: Start, folder: Path, run: Run) -> None:
        seen.append(split)
        real(split, start, folder, run)

    monkeypatch.setattr(tabular, "train", train)
    assert refit(start, True, Artifacts(artifacts))
    assert seen[0].train.equals(ROWS)
    said = pl.read_parquet(artifacts / "refit/m/parity.parquet")
    assert len(said) == PARITY_ROWS
    asked = said.select("id").join(ROWS, on="id", maintain_order="left")
    again = predict_member(artifacts / "refit/m/model", Artifacts(artifacts), asked, lmsys)
    assert np.array_equal(again, said.select(lmsys.classes).to_numpy())


def test_it_is_the_same_each_time(start: Start, artifacts: Path) -> None:
    first = artifacts / "first"
    for _ in range(2):
        assert refit(start, True, Artifacts(artifacts))
        if not first.exists():
            shutil.move(artifacts / "refit/m", first)
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) >= 4
    for file in files:
        assert sha256_file(first / file) == sha256_file(artifacts / "refit/m" / file)


def test_a_model_that_learned_nothing_is_left_out(
    start: Start,
    lmsys: Competition,
    artifacts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned_round = ROWS.with_columns((pl.col("label") + 1) % 3)
    real = tabular.train

    def train(split: Split, start: Start, folder: Path, run: Run) -> None:
        real(Split(turned_round, split.fold, split.holdout), start, folder, run)

    monkeypatch.setattr(tabular, "train", train)
    assert not refit(start, True, Artifacts(artifacts))
    assert "m refit: COLLAPSED" in capsys.readouterr().out
    assert [file.name for file in (artifacts / "refit/m/model").iterdir()] == ["member.json"]
    _nothing_there(artifacts, "tabular", lmsys)


@pytest.mark.parametrize(("kind", "wanted"), [("tabular", False), ("external", True)])
def test_where_there_is_nothing_to_train_it_says_so(
    kind: str, wanted: bool, start: Start, lmsys: Competition, artifacts: Path
) -> None:
    if kind == "external":
        start = replace(start, settings=External(kind="external", backbone="none", file="external/x.csv"))
    assert not refit(start, wanted, Artifacts(artifacts))
    _nothing_there(artifacts, kind, lmsys)


def _nothing_there(artifacts: Path, kind: str, competition: Competition) -> None:
    assert read_json(artifacts / "refit/m/model/member.json") == {"kind": kind, "trained": False}
    said = pl.read_parquet(artifacts / "refit/m/parity.parquet")
    assert said.columns == ["id", *competition.classes]
    assert len(said) == 0
