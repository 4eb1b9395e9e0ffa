from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competitions.task import TASKS
from pipeline.data.folds import HOLDOUT, assign_folds, group_keys, split_rows
from pipeline.errors import PodiumError

PREFERENCE = TASKS["preference"]


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 40), min_size=60, max_size=200),
    folds=st.integers(2, 5),
    holdout=st.sampled_from([0.0, 0.1, 0.25]),
    seed=st.integers(0, 100),
)
def test_no_group_crosses_and_every_row_has_a_fold(groups: list[int], folds: int, holdout: float, seed: int) -> None:
    keys = pl.Series([f"q{g}" for g in groups])
    labels = np.random.default_rng(seed).integers(0, 3, len(groups))
    if keys.n_unique() < folds + 6:
        return
    assigned = assign_folds(keys, labels, folds, holdout, seed)
    parts = pl.DataFrame({"key": keys, "fold": assigned}).group_by("key").agg(pl.col("fold").n_unique())
    assert parts["fold"].max() == 1
    assert set(assigned) - {HOLDOUT} <= set(range(folds))
    assert (HOLDOUT in assigned) == (holdout > 0)
    again = assign_folds(keys, labels, folds, holdout, seed)
    assert np.array_equal(assigned, again)


def test_folds_and_holdout_have_the_shares_asked_for() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(3, size=4000, p=[0.5, 0.4, 0.1])
    assigned = assign_folds(pl.Series([str(i // 2) for i in range(4000)]), labels, 4, 0.1, 3)
    assert abs((assigned == HOLDOUT).mean() - 0.1) < 0.01
    for part in (HOLDOUT, 0, 1, 2, 3):
        shares = np.bincount(labels[assigned == part], minlength=3) / (assigned == part).sum()
        assert np.abs(shares - [0.5, 0.4, 0.1]).max() < 0.03


def test_spacing_case_and_later_turns_do_not_make_a_new_group() -> None:
    prompts = [["What is  AI?"], ["what is ai? "], ["WHAT\nIS AI?", "more"], ["What is Al?"], [None], [""]]
    keys = group_keys(pl.DataFrame({"prompt": prompts}), PREFERENCE)
    assert keys[0] == keys[1] == keys[2]
    assert keys[3] != keys[0]
    assert keys[4] == keys[5]


def test_only_the_first_400_characters_count() -> None:
    keys = group_keys(pl.DataFrame({"prompt": [["x" * 400 + "a"], ["x" * 400 + "b"], ["x" * 399]]}), PREFERENCE)
    assert keys[0] == keys[1] != keys[2]


def test_more_folds_than_groups_is_refused() -> None:
    with pytest.raises(PodiumError, match=r"4 folds and a holdout need at least 5 different first prompts, .* have 3"):
        assign_folds(pl.Series(["a", "b", "c"] * 10), np.zeros(30, dtype=int), 4, 0.1, 0)
    with pytest.raises(PodiumError, match="rows of the largest class"):
        assign_folds(pl.Series([str(i) for i in range(9)]), np.arange(9), 5, 0.0, 0)


def test_split_rows_refuses_another_table() -> None:
    rows = pl.DataFrame({"id": ["1", "2", "3"]})
    split = split_rows(rows, pl.DataFrame({"id": ["1", "2", "3"], "fold": [0, 1, -1]}), 0)
    assert (split.train["id"].to_list(), split.fold["id"].to_list(), split.holdout["id"].to_list()) == (
        ["2"],
        ["1"],
        ["3"],
    )
    with pytest.raises(PodiumError, match=r"folds.parquet"):
        split_rows(rows, pl.DataFrame({"id": ["1", "3", "2"], "fold": [0, 1, -1]}), 0)


def test_the_real_votes_part_without_leak(tmp_path: Path) -> None:
    del tmp_path
    from support import SHARED

    file = SHARED / "arena_real" / "train.csv"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    rows = pl.read_csv(file, infer_schema=False).with_columns(pl.col("prompt").str.json_decode(pl.List(pl.String)))
    labels = rows.select(pl.concat_list("winner_model_a", "winner_model_b", "winner_tie").list.arg_max()).to_series()
    keys = group_keys(rows, PREFERENCE)
    assert keys.n_unique() < len(keys)
    assigned = assign_folds(keys, labels.to_numpy().astype(int), 3, 0.1, 0)
    crossing = pl.DataFrame({"key": keys, "fold": assigned}).group_by("key").agg(pl.col("fold").n_unique())
    assert crossing["fold"].max() == 1
