"""Which two submissions to select: the arithmetic against simulation and textbooks, and the way through git and DVC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaggle_world import IDENTITY, commit, dvc, make_repository
from support import preference_rows, write_artifacts

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.ensemble.uncertainty import cluster_error
from pipeline.errors import PodiumError
from pipeline.files import write_parquet
from pipeline.ledger import selection
from pipeline.ledger.choose import History, best_of_two, choose, paired_errors
from pipeline.ledger.git import git

quick = settings(max_examples=20, deadline=None)
NO_SCORE = np.full(4, np.nan)


def drawn(seed: int, count: int = 4) -> History:
    """Submissions of which some are alike, with noisy public scores."""
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(300, 1)) + 0.3 * draw.normal(size=(300, 2)) @ draw.normal(size=(2, count))
    scores += 0.1 * draw.normal(size=(300, count))
    errors = paired_errors(scores, np.arange(300))
    public = scores.mean(axis=0) + 0.05 * draw.normal(size=count)
    return History(scores.mean(axis=0), errors, 300, public, 150, 350)


@given(st.integers(0, 10**6))
@quick
def test_paired_errors_are_the_clustered_ones_of_each_score_and_of_each_difference(seed: int) -> None:
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 40, 120)
    scores = draw.normal(size=(120, 3)) + draw.normal(size=41)[groups][:, None]
    found = paired_errors(scores, groups)
    for one, other in ((0, 1), (1, 2)):
        assert np.sqrt(found[one, one]) == pytest.approx(cluster_error(scores[:, one], groups))
        apart = found[one, one] + found[other, other] - 2 * found[one, other]
        assert np.sqrt(apart) == pytest.approx(cluster_error(scores[:, one] - scores[:, other], groups))


@given(st.integers(0, 10**6))
@quick
def test_the_better_one_of_two_is_what_draws_say(seed: int) -> None:
    draw = np.random.default_rng(seed)
    mean, root = draw.normal(size=2), draw.normal(size=(2, 2))
    covariance = root @ root.T
    draws = draw.multivariate_normal(mean, covariance, 200_000)
    lower = draws.min(axis=1)
    assert best_of_two(mean, covariance, 0, 1) == pytest.approx(lower.mean(), abs=5 * lower.std() / np.sqrt(200_000))
    assert best_of_two(mean, covariance, 0, 0) == mean[0]


@given(st.integers(0, 10**6))
@quick
def test_the_pair_is_the_best_of_all_and_chances_add_up(seed: int) -> None:
    history = drawn(seed)
    found = choose(history, 0)
    assert found.best.sum() == pytest.approx(1)
    assert found.value == pytest.approx(min(found.best_of(i, j) for i in range(4) for j in range(i)))
    assert found.value <= found.expected.min() + 1e-12


@given(st.integers(0, 10**6), st.floats(-3, 3))
@quick
def test_a_shift_of_all_public_scores_changes_no_choice(seed: int, shift: float) -> None:
    history = drawn(seed)
    one, other = choose(history, 0), choose(replace(history, public=history.public + shift), 0)
    assert one.pair == other.pair
    np.testing.assert_allclose(other.expected - one.expected, shift, atol=2e-3 * max(1, abs(shift)))


def test_without_public_scores_cv_decides_and_with_endless_ones_they_do() -> None:
    history = drawn(3)
    found = choose(replace(history, public=NO_SCORE), 0)
    np.testing.assert_allclose(found.expected, history.cv)
    sure = replace(history, public=history.cv[::-1].copy(), public_rows=10**9, private_rows=10**9)
    found = choose(sure, 0)
    np.testing.assert_allclose(found.expected, sure.public, atol=1e-5)
    assert found.best[np.argmin(sure.public)] == 1.0


def test_of_two_that_are_equally_good_the_one_that_differs_is_taken() -> None:
    errors = np.array([[1.0, 0.999, 0.0], [0.999, 1.0, 0.0], [0.0, 0.0, 1.0]]) * 1e-4
    history = History(np.array([0.5, 0.5, 0.501]), errors, 1000, NO_SCORE[:3], 300, 700)
    assert 2 in choose(history, 0).pair


def test_public_scores_that_contradict_cv_are_believed_more_the_more_they_do() -> None:
    history = drawn(5)
    agreeing = replace(history, public=history.cv.copy())
    contrary = replace(history, public=history.cv[::-1] * 30)
    assert choose(agreeing, 0).own == 0.0 < choose(contrary, 0).own


# The way through git and DVC.


def said(folder: Path, competition: Competition, skill: float, seed: int) -> None:
    """The stack's nested answers of a commit, better the greater `skill` is."""
    rows = preference_rows(120)
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(120, 3)) * 0.3
    logits[np.arange(120), rows["label"].to_numpy()] += skill
    means = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    columns = {name: means[:, c] for c, name in enumerate(competition.classes)}
    frame = rows.select("id", "label").with_columns(fold=np.arange(120) % 3, **columns)
    (folder / "artifacts/stack").mkdir(parents=True, exist_ok=True)
    write_parquet(frame, folder / "artifacts/stack/level2.parquet")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, lmsys: Competition) -> Path:
    """A repository with three submissions of rising skill, and one whose answers DVC does not have."""
    root = tmp_path_factory.mktemp("choose") / "repository"
    make_repository(root)
    write_artifacts(root, preference_rows(120), lmsys, np.arange(120) % 3)
    stages = (root / "dvc.yaml").read_text()
    stack = '  stack:\n    cmd: "true"\n    params: [members]\n    outs: [artifacts/stack]\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, value in (IDENTITY | {"DVC_NO_ANALYTICS": "1"}).items():
            patch.setenv(name, value)
        git("tag", "-a", "sub-1", "-m", "{}")
        (root / "dvc.yaml").write_text(stages.replace("metrics: [lb", f"{stack}metrics: [lb"))
        for number, skill in ((2, 0.3), (3, 0.9), (4, 0.6)):
            said(root, lmsys, skill, number)
            dvc("commit", "-f", "-q", cwd=root)
            commit(root, f"submission {number}")
            git("tag", "-a", f"sub-{number}", "-m", "{}")
    return root


def test_the_two_best_are_selected_from_what_dvc_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    lines = selection.selection(0.3, Artifacts()).lines()
    shown = "\n".join(lines)
    assert "select 3 and 4: the better one is expected at" in shown
    assert [line[:3].strip() for line in lines if line.endswith("<- select")] == ["3", "4"]
    assert "the two best by CV, 3 and 4:" in shown and "by public LB" not in shown
    assert "submission 1 is left out: dvc:" in shown and "assumed:" in lines[-1]


def test_what_cannot_be_compared_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(PodiumError, match=r"PUBLIC: expected the share of the test rows .*, found 1\.5"):
        selection.selection(1.5, Artifacts())
    monkeypatch.setattr(selection, "submitted_entries", lambda: [])
    with pytest.raises(PodiumError, match="two submissions are needed to choose from, found 0"):
        selection.selection(0.3, Artifacts())
