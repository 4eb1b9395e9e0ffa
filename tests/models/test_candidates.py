"""Classes that a row's group allows: as shares that hold, for every kind of member, and never by a row's own label."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import decoder, encoder, ready

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, Label
from pipeline.data.split import split_rows
from pipeline.files import write_json
from pipeline.inference.passes import combined, passes_of
from pipeline.inference.predict import open_member, predict_member
from pipeline.members.context import Start
from pipeline.members.fold import train_fold
from pipeline.models.candidates import Candidates
from pipeline.settings.tabular import Tabular

CLASSES = 6
COMPETITION = Competition(
    "toy", "text", "map@3", "id", {"question": "q", "text": "t"}, Label(column="label"),
    classes=tuple("abcdef"), candidates="question", group=("text",),
)  # fmt: skip


def rows_of(groups: list[str], labels: list[int]) -> pl.DataFrame:
    columns = {
        "id": [str(n) for n in range(len(groups))],
        "label": pl.Series(labels, dtype=pl.Int16),
        "question": [[name] for name in groups],
        "text": [[f"answer {n % 7}"] for n in range(len(groups))],
        "group": [str(n) for n in range(len(groups))],
    }
    return pl.DataFrame(columns)


def drawn(count: int, seed: int) -> pl.DataFrame:
    """Rows of four questions with three classes each, of which one is rare."""
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 4, count)
    labels = (groups + draw.choice(3, count, p=[0.6, 0.38, 0.02])) % CLASSES
    return rows_of([f"question {group}" for group in groups], labels.tolist())


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_answers_stay_probabilities_and_keep_their_proportions(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    candidates = Candidates.of(drawn(count, seed), COMPETITION)
    answers = draw.dirichlet(np.ones(CLASSES), size=20)
    asked = rows_of([f"question {number % 6}" for number in range(20)], [0] * 20)
    found = candidates.applied(asked, answers)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert found.min() >= 0
    for factors in found / answers:
        assert len(np.unique(np.round(factors, 9))) <= 2  # one within the candidates, one outside
    unknown = [row for row in range(20) if row % 6 >= 4]
    np.testing.assert_array_equal(found[unknown], answers[unknown])  # questions that are new allow every class
    np.testing.assert_allclose(candidates.applied(asked, found), found)


def test_unseen_classes_get_the_share_that_new_rows_have_of_them() -> None:
    count, shares, found = 60, [], []
    for seed in range(100):
        learned, later = drawn(count, seed), drawn(400, 1000 + seed)
        shares.append(Candidates.of(learned, COMPETITION).unseen)
        found.append(later.join(learned, on=["question", "label"], how="anti").height / later.height)
    assert np.mean(shares) - 0.5 / (count + 1) == pytest.approx(np.mean(found), rel=0.3)


def test_what_has_no_answer_stays_without_and_what_is_sure_stays_sure() -> None:
    candidates = Candidates.of(rows_of(["q", "q"], [0, 1]), COMPETITION)
    answers = np.array([[np.nan] * CLASSES, [0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_array_equal(candidates.applied(rows_of(["q"] * 3, [0] * 3), answers), answers)


def test_they_are_kept_beside_the_model(tmp_path: Path) -> None:
    candidates = Candidates.of(drawn(50, 1), COMPETITION)
    candidates.save(tmp_path)
    assert Candidates.load(tmp_path) == candidates


TABULAR: Any = Tabular(kind="tabular", backbone="none", model="logistic")
TRAINING: dict[str, Any] = {"epochs": 1, "schedule": {"rate": 1e-3}}


@pytest.mark.parametrize(
    "settings",
    [
        TABULAR,
        encoder(TRAINING, input="joint", inference={"long_tokens": 96}),
        decoder(TRAINING, pooling="mean"),
        decoder(TRAINING, head="tokens", max_tokens=200),
    ],
    ids=["tabular", "encoder with a long pass", "decoder", "answers in tokens"],
)
def test_every_member_answers_with_its_folds_candidates(
    settings: Any, tmp_path: Path, backbones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = drawn(60, 3)
    odd = rows.height - 1  # the only row of its question with that class, and in the fold that is not learned
    rows = rows.with_columns(
        pl.when(pl.int_range(pl.len()) == odd).then(5).otherwise("label").cast(pl.Int16).alias("label")
    )
    folds = np.r_[np.arange(odd) % 3, 0].astype(np.int8)
    artifacts = Artifacts(ready(tmp_path, rows, COMPETITION, folds, backbones))
    start = Start("mine", settings, COMPETITION, 1, max_attempts=1)
    write_json(artifacts.start("mine"), asdict(start))
    split = split_rows(rows, artifacts.folds(), 0)
    train_fold(split, start, 0, artifacts)
    folder = artifacts.model("mine", 0)
    candidates = Candidates.load(folder)
    assert candidates == Candidates.of(split.train, COMPETITION)
    found = predict_member(folder, artifacts, rows, COMPETITION)
    free = predict_member(folder, artifacts, rows, replace(COMPETITION, candidates=""))
    part = pl.read_parquet(artifacts.oof_part("mine", 0)).select(COMPETITION.outputs).to_numpy()
    np.testing.assert_array_equal(part, found[folds == 0])
    learned = set(zip(split.train["question"].list.first(), split.train["label"], strict=True))
    assert (rows["question"].list.first()[odd], 5) not in learned
    allowed = np.array([[(q, c) in learned for c in range(CLASSES)] for q in rows["question"].list.first()])
    assert np.where(allowed, 0, found).sum(axis=1).max() <= candidates.unseen + 1e-9
    assert np.where(allowed, 0, free).sum(axis=1).max() > candidates.unseen
    with closing(open_member(folder, artifacts, COMPETITION)) as opened:  # as the kernel asks: pass by pass
        parts = {which: opened.predict(rows, which) for which in passes_of(settings)}
    np.testing.assert_allclose(combined(parts), found, rtol=1e-6)
