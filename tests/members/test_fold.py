"""What a fold's training asks its model beside the fold: the same rows with their sides exchanged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outcomes import COMPETITIONS, labelled_rows
from support import preference_rows, write_artifacts, write_external

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import Split, split_rows
from pipeline.files import read_json, write_json
from pipeline.members import fold as folds
from pipeline.members.context import Start
from pipeline.members.fold import collapsed, swap_difference, train_fold
from pipeline.settings.tabular import Tabular

ROWS = preference_rows(120, seed=2)


@pytest.fixture
def artifacts(lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_artifacts(tmp_path, ROWS, lmsys, np.arange(len(ROWS)) // 2 % 4 - 1)


def told(artifacts: Path, start: Start) -> Any:
    """The `swap` of the receipt of fold 0."""
    here = Artifacts(artifacts)
    write_json(here.start("m"), asdict(start))
    train_fold(split_rows(ROWS, here.folds(), 0), start, 0, here)
    return read_json(artifacts / "receipts/m-fold0.json")["swap"]


@pytest.fixture
def start(lmsys: Competition) -> Start:
    return Start("m", Tabular(kind="tabular", backbone="none", model="logistic"), lmsys, threads=1)


def test_a_model_that_treats_both_sides_alike_shows_no_difference(artifacts: Path, start: Start) -> None:
    assert 0.0 <= told(artifacts, start) < 1e-9


def test_a_model_that_prefers_a_side_shows_how_much(
    artifacts: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaning = np.array([0.5, 0.3, 0.2])
    monkeypatch.setattr(
        folds, "predict_member", lambda folder, artifacts, rows, *others: np.tile(leaning, (len(rows), 1))
    )
    assert told(artifacts, start) == pytest.approx(0.2)


def test_a_file_of_predictions_cannot_be_asked_again(artifacts: Path, lmsys: Competition) -> None:
    start = write_external(artifacts.parent, "m", ROWS, lmsys, 1.0)
    assert told(artifacts, start) is None


def test_the_difference_is_that_of_the_worst_row_and_class(lmsys: Competition) -> None:
    answers = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.4, 0.4, 0.2]])
    mirrored = answers[:2, [1, 0, 2]]
    assert swap_difference(answers, mirrored, lmsys) == 0.0
    mirrored[1] = [0.75, 0.1, 0.15]
    assert swap_difference(answers, mirrored, lmsys) == pytest.approx(0.05)
    assert swap_difference(answers, answers[:0], lmsys) is None


@pytest.mark.parametrize("name", ["classes", "binary", "labels", "ordered", "numbers", "choices"])
def test_too_sure_is_not_collapsed_and_noise_is(name: str) -> None:
    competition = COMPETITIONS[name]
    family, found = competition.family, []
    for seed in range(30):
        rows, truth = labelled_rows(competition, 1000, seed)
        split, eta = Split(rows, rows, rows.head(0)), family.link(truth)
        prior = family.link(family.prior(rows["label"].to_numpy())[None])
        shuffled = eta[np.random.default_rng(seed).permutation(len(eta))]
        sure, noise = (family.means(prior + 6.0 * (each - prior)) for each in (eta, shuffled))
        losses = family.losses(rows["label"].to_numpy(), sure).mean()
        assert losses > family.losses(rows["label"].to_numpy(), np.tile(family.means(prior), (1000, 1))).mean()
        assert not collapsed(split, sure, competition)
        found.append(collapsed(split, noise, competition))
    assert np.mean(found) >= 0.9
    constant = np.tile(family.means(prior), (1000, 1))
    assert collapsed(split, constant, competition)
