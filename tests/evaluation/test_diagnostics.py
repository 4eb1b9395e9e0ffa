from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from support import geometric_mean, preference_rows, probabilities

from pipeline.competitions.metrics import METRICS, Metric
from pipeline.competitions.task import Competition
from pipeline.ensemble.nested import nested_candidates, second_level
from pipeline.ensemble.table import Table
from pipeline.evaluation.diagnostics import (
    DISAGREEMENTS,
    EXCERPT,
    disputed_rows,
    marginal_gains,
    slice_scores,
    swap_consistency,
)
from pipeline.evaluation.slices import FEWEST_ROWS, row_slices

LOG_LOSS = METRICS["log_loss"]
MEMBERS = ["good", "copy", "noise"]


@pytest.fixture(scope="module")
def table() -> Table:
    """`good` knows most, `copy` says the same, `noise` knows nothing."""
    rows = preference_rows(600, seed=3)
    labels = rows["label"].to_numpy()
    good = probabilities(labels, 3, 1.3, 0)
    says = {"good": good, "copy": good.copy(), "noise": probabilities(np.zeros(600, dtype=int), 3, 0.0, 5)}
    return Table(rows.drop("label").with_columns(pl.Series("fold", np.arange(600) // 2 % 4)), labels, says)


def test_a_members_gains_are_differences_of_nested_scores(table: Table, lmsys: Competition) -> None:
    second = second_level(table, MEMBERS, lmsys, False, 0)
    found = {row["member"]: row for row in marginal_gains(table, second, MEMBERS, lmsys, 1, 0)}
    full = LOG_LOSS.score(table.labels, nested_candidates(["weights"], second, lmsys, 1, 0)["weights"].means)
    left = LOG_LOSS.score(
        table.labels, nested_candidates(["weights"], second.members([0, 1]), lmsys, 1, 0)["weights"].means
    )
    assert found["noise"]["left_out"]["mean"] == pytest.approx(left - full)
    assert [row["best"] for row in found.values()] == [True, False, False]
    assert found["good"]["added"]["low"] > 0.2  # the best member against the class shares
    assert abs(found["good"]["left_out"]["mean"]) < 0.005  # its copy stands in for it
    assert abs(found["copy"]["added"]["mean"]) < 0.005
    assert found["noise"]["added"]["mean"] < 0.005
    for row in found.values():
        for key in ("left_out", "added"):
            assert row[key]["low"] <= row[key]["mean"] <= row[key]["high"]


def test_a_single_member_is_measured_against_the_class_shares(table: Table, lmsys: Competition) -> None:
    second = second_level(table, ["good"], lmsys, False, 0)
    (row,) = marginal_gains(table, second, ["good"], lmsys, 1, 0)
    assert row["left_out"] == row["added"]
    assert row["left_out"]["low"] > 0


def test_the_slices_of_a_family_share_out_the_rows(table: Table, lmsys: Competition) -> None:
    rows = table.rows.with_columns(
        pl.when(pl.int_range(600) < 50)
        .then(pl.lit(["первый вопрос", "второй"]))
        .otherwise(pl.col("prompt"))
        .alias("prompt")
    )
    found = row_slices(rows, table.labels, lmsys)
    assert (
        {"length", "input", "turns", "script", "answers' lengths", "outcome"}
        >= set(found)
        >= {"length", "turns", "outcome"}
    )
    for parts in found.values():
        counts = np.sum(list(parts.values()), axis=0)
        assert counts.max() == 1  # no row twice
        assert counts.mean() > 0.9  # only parts too small to score are left out
        assert all(mask.sum() >= FEWEST_ROWS for mask in parts.values())
    assert found["turns"]["two turns"].sum() == 50
    assert np.array_equal(found["outcome"]["tie"], table.labels == 2)


def test_nearly_equal_answers_are_found(lmsys: Competition) -> None:
    a = ["x" * 100] * 60
    b = ["x" * length for length in (96, 100, 104, 94, 50, 200)] * 10
    rows = pl.DataFrame({"id": [str(i) for i in range(60)], "prompt": [["p"]] * 60})
    rows = rows.with_columns(pl.Series("a", [[text] for text in a]), pl.Series("b", [[text] for text in b]))
    near = row_slices(rows, np.arange(60) % 3, lmsys)["answers' lengths"]["within 5%"]
    assert near[:6].tolist() == [True, True, True, False, False, False]


def test_rows_are_told_apart_by_the_input_that_would_cut_them(lmsys: Competition) -> None:
    words = np.repeat([100, 300, 2000], 25)
    rows = pl.DataFrame({"id": [str(i) for i in range(75)], "prompt": [["why"]] * 75, "a": [["yes"]] * 75})
    rows = rows.with_columns(pl.Series("b", [["word " * count] for count in words]))
    parts = row_slices(rows, np.arange(75) % 3, lmsys)["input"]
    for name, count in {"fits 256 words": 100, "cut at 256 words": 300, "cut at 1,024 words": 2000}.items():
        assert np.array_equal(parts[name], words == count)


def test_slice_scores_add_up_to_the_score(table: Table, lmsys: Competition) -> None:
    stacked = geometric_mean([table.probabilities["good"], table.probabilities["noise"]])
    found = slice_scores(table, stacked, "good", table.groups(lmsys), lmsys, 0)
    outcome = [row for row in found if row["family"] == "outcome"]
    total = sum(row["rows"] * row["stack"] for row in outcome) / sum(row["rows"] for row in outcome)
    assert total == pytest.approx(LOG_LOSS.score(table.labels, stacked))
    for row in found:
        assert row["gain"] == pytest.approx(row["best_member"] - row["stack"])


def test_a_score_that_is_no_mean_is_that_of_each_slice(
    table: Table, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spread(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """The variance of the true class's probability; a row's influence is its squared distance minus the score."""
        chosen = probabilities[np.arange(len(labels)), labels]
        return (chosen - chosen.mean()) ** 2

    monkeypatch.setitem(METRICS, "spread", Metric(spread, True))
    good = table.probabilities["good"]
    found = slice_scores(table, good, "noise", table.groups(lmsys), replace(lmsys, metric="spread"), 0)
    for family, parts in row_slices(table.rows, table.labels, lmsys).items():
        for name, mask in parts.items():
            (row,) = (row for row in found if (row["family"], row["slice"]) == (family, name))
            chosen = good[mask, table.labels[mask]]
            assert row["stack"] == pytest.approx(chosen.var())
            assert row["gain"] == pytest.approx(row["stack"] - row["best_member"])


def test_the_rows_of_most_disagreement_come_first(table: Table, lmsys: Competition) -> None:
    says = {name: each.copy() for name, each in table.probabilities.items()}
    says["noise"] = says["good"].copy()
    says["good"][7], says["copy"][7], says["noise"][7] = np.eye(3)
    rows = table.rows.with_columns(pl.Series("a", [["long " * 200], *table.rows["a"].to_list()[1:]]))
    found = disputed_rows(Table(rows, table.labels, says), says["good"], MEMBERS, lmsys)
    assert len(found) == DISAGREEMENTS
    assert found[0]["id"] == table.rows["id"][7]
    assert found[0]["divergence"] == pytest.approx(np.log(3), abs=1e-4)  # probabilities are clipped
    assert found[0]["members"]["copy"] == [0, 1, 0]
    assert found[1]["divergence"] == pytest.approx(0)
    assert all(len(text) <= EXCERPT + 1 for row in found for text in row["texts"].values())


def test_a_lean_to_one_side_is_seen(table: Table, lmsys: Competition, spooky: Competition) -> None:
    leaning = table.probabilities["good"] * [1.6, 1.0, 1.0]
    leaning /= leaning.sum(axis=1, keepdims=True)
    both = Table(table.rows, table.labels, {"even": table.probabilities["good"], "left": leaning})
    receipts = {"even": [{"swap": 1e-12}, {"swap": 3e-12}], "left": [{"swap": None}, {}]}
    even, left = swap_consistency(both, ["even", "left"], receipts, lmsys) or []
    assert even["difference"] == 3e-12
    assert left["difference"] is None
    assert abs(even["lean"]) < 2.5 * even["lean_error"]
    assert left["lean"] > 3 * left["lean_error"]
    assert swap_consistency(both, ["even"], receipts, spooky) is None
