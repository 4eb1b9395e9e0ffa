"""The leak probe on real fold training: clean code passes, a fold that learns from its own labels is caught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from support import preference_rows, probabilities, write_artifacts

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Stack
from pipeline.data.split import Split, split_rows
from pipeline.errors import PodiumError
from pipeline.members import fold as folds
from pipeline.members import probe
from pipeline.members.context import Run, Start

FOLDS = [0, 1, 2]
STACK = Stack(candidates=("mean", "weights"), seed=3)


@pytest.fixture(autouse=True)
def _work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints lie in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory, lmsys: Competition) -> Path:
    rows = preference_rows(600, seed=6)
    return write_artifacts(tmp_path_factory.mktemp("built"), rows, lmsys, np.arange(600) // 2 % 4 - 1)


def run(artifacts: Path, folder: Path, competition: Competition) -> dict:
    return probe.run_probe(Artifacts(artifacts), Artifacts(folder), competition, FOLDS, 1, STACK)


def test_clean_code_gains_nothing_and_says_the_same_twice(artifacts: Path, lmsys: Competition, tmp_path: Path) -> None:
    found = run(artifacts, tmp_path / "one", lmsys)
    assert found["leak"] is False
    assert found["rows"] == 450
    assert found["prior"] - found["score"] == pytest.approx(found["gain"])
    assert found == run(artifacts, tmp_path / "two", lmsys)


def test_training_rows_that_hold_the_fold_are_caught(
    artifacts: Path, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folds.train_model

    def leaky(split: Split, start: Start, folder: Path, run: Run) -> Any:
        return whole(replace(split, train=pl.concat([split.train, split.fold])), start, folder, run)

    monkeypatch.setattr(folds, "train_model", leaky)
    assert run(artifacts, tmp_path, lmsys)["leak"] is True


def test_a_receipt_that_names_other_rows_is_refused(
    artifacts: Path, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(rows: pl.DataFrame, folds: pl.DataFrame, fold: int) -> Split:
        clean = split_rows(rows, folds, fold)
        return Split(pl.concat([clean.train, clean.fold]), clean.fold, clean.holdout)

    monkeypatch.setattr(probe, "split_rows", leaky)
    with pytest.raises(PodiumError, match="stale, made from other rows"):
        run(artifacts, tmp_path, lmsys)


def test_labels_change_places_within_folds_and_prompts_stay_whole(artifacts: Path, lmsys: Competition) -> None:
    rows = pl.read_parquet(artifacts / "competition" / "train.parquet")
    folds = pl.read_parquet(artifacts / "folds.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "MOST_ROWS", 201)
        noise = probe.shuffled(rows, folds, lmsys, 0)
    assert 201 <= len(noise) <= 202
    assert noise.group_by("prompt").len()["len"].unique().to_list() == [2]
    before = rows.join(noise.select("id"), on="id", how="semi").with_columns(noise["fold"])
    assert before["id"].equals(noise["id"])
    for fold in (HOLDOUT, *FOLDS):
        here = noise["fold"] == fold
        assert sorted(noise.filter(here)["label"]) == sorted(before.filter(here)["label"])
    assert (noise["label"] != before["label"]).sum() > 60


def test_chance_rarely_looks_like_a_leak(lmsys: Competition) -> None:
    rng = np.random.default_rng(0)
    accused = 0
    for seed in range(200):
        labels = rng.permutation(np.repeat([0, 1, 2], [120, 120, 60]))
        noise = probabilities(np.zeros_like(labels), 3, 0.0, seed) * 0.2 + 0.8 * np.array([0.4, 0.4, 0.2])
        accused += probe.verdict(labels, noise, np.arange(300), lmsys)["leak"]
    assert accused <= 6
