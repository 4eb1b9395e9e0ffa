"""Every competition that is shipped: a made-up twin of its files goes through prepare and folds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from competition_files import twin
from support import ROOT

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.ingest.prepare import prepare, read_test
from stages import folds
from stages.prepare import summary

NAMES = sorted(file.stem for file in (ROOT / "pipeline" / "competitions").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_twin_is_prepared_and_parted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    competition = load_competition(name)
    source, artifacts = twin(tmp_path / "data", competition), Artifacts(tmp_path / "artifacts")
    prepare(source, competition, artifacts.competition_folder)
    kept = artifacts.competition()
    labels = artifacts.train().select("label").collect()["label"].to_numpy()
    means = np.tile(kept.family.prior(labels), (48, 1))
    assert means.shape == (48, len(kept.outputs))
    assert np.isfinite(kept.family.losses(labels, means)).all()
    assert summary(artifacts).startswith(f"{kept.name}: 48 train and 12 test rows; ")
    test = pl.read_parquet(artifacts.test_file)
    assert test.columns == ["id", *kept.kind.fields]
    for strict in (True, False):  # what the kernel reads
        assert read_test(source / kept.test, kept, strict).equals(test)

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    folds.main()
    assert " different " in capsys.readouterr().out
    assert set(artifacts.folds()["fold"]) == {0, 1, 2, HOLDOUT}
