from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import preference_rows, probabilities

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.data.features import swapped
from pipeline.ensemble import stackers
from pipeline.ensemble.level1 import Level1, build_level1
from pipeline.ensemble.nested import nested_predictions, simplest_of_the_best

LOG_LOSS = METRICS["log_loss"]


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return preference_rows(300, seed=4)


def inputs(rows: pl.DataFrame, competition: Competition, features: bool = True) -> tuple[Level1, np.ndarray]:
    labels = rows["label"].to_numpy()
    members = [probabilities(labels, 3, sharpness, seed) for seed, sharpness in enumerate((1.0, 0.6))]
    return build_level1(members, rows, competition, features), labels


def parts_of(count: int) -> np.ndarray:
    return np.arange(count) // 2 % 4  # rows 2i and 2i + 1 share a prompt


@pytest.mark.parametrize("name", ["mean", "logistic", "lightgbm"])
def test_mirrored_rows_get_mirrored_answers(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    level1, labels = inputs(rows, lmsys)
    fitted = stackers.fit(name, level1, labels, parts_of(len(labels)), lmsys, 1, 0)
    straight = stackers.predict(fitted, level1, lmsys)
    members = [lmsys.mirrored(probabilities(labels, 3, sharpness, seed)) for seed, sharpness in enumerate((1.0, 0.6))]
    other = stackers.predict(fitted, build_level1(members, swapped(rows, lmsys.kind), lmsys, True), lmsys)
    assert np.abs(lmsys.mirrored(other) - straight).max() < 1e-12
    assert np.abs(straight.sum(axis=1) - 1).max() < 1e-9


@pytest.mark.parametrize("name", ["mean", "logistic", "lightgbm"])
def test_a_saved_stacker_answers_the_same(name: str, rows: pl.DataFrame, lmsys: Competition, tmp_path: Path) -> None:
    level1, labels = inputs(rows, lmsys)
    fitted = stackers.fit(name, level1, labels, parts_of(len(labels)), lmsys, 1, 0)
    again = stackers.load(stackers.save(fitted, tmp_path, "trees.txt"), tmp_path, 1)
    assert np.array_equal(stackers.predict(again, level1, lmsys), stackers.predict(fitted, level1, lmsys))


def test_the_equal_mean_of_one_member_is_that_member(rows: pl.DataFrame, lmsys: Competition) -> None:
    labels = rows["label"].to_numpy()
    alone = probabilities(labels, 3, 1.0, 0)
    level1 = build_level1([alone], rows, lmsys, False)
    assert np.abs(stackers.predict(stackers.Mean(), level1, lmsys) - alone).max() < 1e-9


def test_the_logistic_stacker_mends_an_overconfident_member(rows: pl.DataFrame, lmsys: Competition) -> None:
    labels = rows["label"].to_numpy()
    sure = probabilities(labels, 3, 0.7, 0) ** 4
    sure /= sure.sum(axis=1, keepdims=True)
    level1 = build_level1([sure], rows, lmsys, False)
    nested = nested_predictions("logistic", level1, labels, parts_of(len(labels)), lmsys, 1, 0)
    assert LOG_LOSS.score(labels, nested) < LOG_LOSS.score(labels, sure) - 0.05


@pytest.mark.parametrize("present", [(0, 2), (1,), (0, 1)])
def test_a_class_that_never_occurs_keeps_its_column(present: tuple[int, ...], spooky: Competition) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(present, size=80)
    rows = pl.DataFrame({"id": [str(i) for i in range(80)], "text": [["x"]] * 80})
    level1 = build_level1([probabilities(labels, 3, 1.0, 0)], rows, spooky, False)
    answer = stackers.predict(stackers.fit("logistic", level1, labels, np.arange(80) % 4, spooky, 1, 0), level1, spooky)
    assert answer.shape == (80, 3)
    assert (answer > 0).all()
    missing = [c for c in range(3) if c not in present]
    assert answer[:, missing].max() < 0.02


def test_the_outer_fold_never_teaches_its_own_stacker(rows: pl.DataFrame, lmsys: Competition) -> None:
    """Changing the labels of one part must leave the predictions for that part as they are."""
    level1, labels = inputs(rows, lmsys, features=False)
    parts = parts_of(len(labels))
    turned = np.where(parts == 1, (labels + 1) % 3, labels)
    for name in ("logistic", "lightgbm"):
        before = nested_predictions(name, level1, labels, parts, lmsys, 1, 0)
        after = nested_predictions(name, level1, turned, parts, lmsys, 1, 0)
        assert np.array_equal(before[parts == 1], after[parts == 1])
        assert not np.array_equal(before[parts == 0], after[parts == 0])


def test_the_simplest_candidate_within_one_paired_error_wins() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1.0, 1.0, 1000)
    noise = rng.normal(0, 1.0, 1000)
    assert simplest_of_the_best({"mean": base, "logistic": base - 0.01 + noise}) == "mean"
    assert simplest_of_the_best({"mean": base, "logistic": base - 0.01}) == "logistic"
    assert simplest_of_the_best({"mean": base, "logistic": base + 0.01}) == "mean"
