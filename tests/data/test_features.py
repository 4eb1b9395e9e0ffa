from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHARED

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Task
from pipeline.data.features import BATCH, mirrored_features, text_features
from pipeline.data.rows import swapped

PREFERENCE, SINGLE = load_competition("lmsys").kind, load_competition("spooky").kind
TURNS = pl.List(pl.String)

texts = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.sampled_from(
        [
            "I'm sorry, but I cannot.",
            "- one\n- two\n",
            "```py\nx = 1\n```",
            "| a | b |",
            "Привет, мир!",
            "你好。",
            "😀",
            " \n\t",
            "",
        ]
    )
)
turns = st.lists(texts, max_size=3)


def frame(cells: list[tuple[list, list, list]]) -> pl.DataFrame:
    columns = dict(zip(("prompt", "a", "b"), map(list, zip(*cells, strict=True)), strict=True))
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, TURNS))


def one(prompt: str, a: str, b: str) -> dict[str, float]:
    return text_features(frame([([prompt], [a], [b])]), PREFERENCE).row(0, named=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(turns, turns, turns), min_size=1, max_size=6))
def test_a_mirrored_row_has_the_mirrored_features_to_the_last_bit(cells: list) -> None:
    rows = frame(cells)
    straight = text_features(rows, PREFERENCE)
    other = text_features(swapped(rows, PREFERENCE), PREFERENCE)
    assert other.equals(mirrored_features(straight, PREFERENCE))
    for name in (name.removeprefix("a_") for name in straight.columns if name.startswith("a_")):
        assert straight[f"a_{name}"].equals(other[f"b_{name}"].alias(f"a_{name}"))
        assert (straight[f"diff_{name}"] == -other[f"diff_{name}"]).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(turns, turns, turns), min_size=1, max_size=6))
def test_features_are_finite_and_belong_to_their_row_alone(cells: list) -> None:
    rows = frame(cells)
    features = text_features(rows, PREFERENCE)
    assert np.isfinite(features.to_numpy()).all()
    assert set(features.dtypes) == {pl.Float32}
    assert text_features(rows[-1:], PREFERENCE).equals(features[-1:])
    single = text_features(rows.select(text="a"), SINGLE)
    assert np.isfinite(single.to_numpy()).all()


@pytest.mark.parametrize("task", [PREFERENCE, SINGLE])
def test_batches_and_files_give_the_same_bits_in_the_same_order(tmp_path: Path, task: Task) -> None:
    words = np.random.default_rng(0).choice(["I'm sorry", "- one\n", "x = 1", "你好。", "a b", ""], (2 * BATCH + 5, 3))
    cells = [([f"Question {i}"], [a, b], [b, c] if i % 7 else []) for i, (a, b, c) in enumerate(words.tolist())]
    rows = frame(cells).with_columns(text="a")
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=777)
    some = (0, BATCH - 1, BATCH, 2 * BATCH, len(rows) - 1)
    features = text_features(rows, task)
    assert all(features[i].equals(text_features(rows[i], task)) for i in some)
    assert text_features(pl.scan_parquet(tmp_path / "rows.parquet"), task).equals(features)
    nothing = text_features(pl.scan_parquet(tmp_path / "rows.parquet").head(0), task)
    assert nothing.schema == features.schema and nothing.is_empty()


def test_swapping_twice_changes_nothing() -> None:
    rows = frame([(["q"], ["one"], ["two"])])
    assert swapped(swapped(rows, PREFERENCE), PREFERENCE).equals(rows)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("I'm sorry, but as an AI I cannot.", "refusals", 3),
        ("- one\n* two\nthree", "list_items", 2),
        ("1. one\n2) two", "numbered_items", 2),
        ("| a | b |\n| - | - |", "table_rows", 2),
        ("# Title\ntext", "headings", 1),
        ("```py\nx\n```", "code_blocks", 2),
        ("one two two", "words", 3),
        ("one two two", "distinct_words", 2),
        ("Привет", "cyrillic", 1.0),
        ("你好", "cjk", 1.0),
        ("abcdef", "characters", 6),
        ("What? Why?", "question_marks", 2),
    ],
)
def test_a_measure_counts_what_its_name_says(text: str, name: str, expected: float) -> None:
    row = one("q", text, "")
    assert row[f"a_{name}"] == pytest.approx(expected)
    assert row[f"diff_{name}"] == pytest.approx(expected - row[f"b_{name}"])


def test_overlap_and_nearness_of_the_two_answers() -> None:
    same, different = one("the cat", "a cat sat", "a cat sat"), one("the cat", "a cat sat", "dogs bark loudly at night")
    assert same["equal_texts"] == 1
    assert same["word_overlap"] == 1
    assert same["closeness_10"] == 1
    assert different["equal_texts"] == different["word_overlap"] == 0
    assert different["a_prompt_words_used"] == 0.5 > different["b_prompt_words_used"]


def test_what_an_input_would_cut_is_a_share_of_prompt_and_answer() -> None:
    row = one("why " * 200, "word " * 312, "short")
    assert row["a_beyond_256"] == 0.5
    assert row["a_beyond_1024"] == row["b_beyond_256"] == 0
    assert row["diff_beyond_256"] == 0.5


def test_a_text_of_a_million_characters_is_only_long() -> None:
    long = "word " * 200_000
    row = one(long, long, "short")
    assert row["a_characters"] == 1_000_000
    assert row["ratio_characters"] == pytest.approx(np.log1p(1_000_000) - np.log1p(5), rel=1e-5)


def test_a_column_without_any_row_or_turn_works() -> None:
    empty = frame([([], [], [])])
    assert len(text_features(empty[:0], PREFERENCE)) == 0
    assert text_features(empty, PREFERENCE).equals(text_features(frame([([], [None], [""])]), PREFERENCE)) is False
    assert text_features(empty, PREFERENCE)["a_characters"][0] == 0


def test_near_equal_lengths_tell_the_real_votes_ties() -> None:
    file = SHARED / "arena_real" / "train.csv"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    raw = pl.read_csv(file, infer_schema=False, n_rows=1500)
    cells = {"prompt": "prompt", "a": "response_a", "b": "response_b"}
    rows = raw.select(pl.col(column).str.json_decode(TURNS).alias(name) for name, column in cells.items())
    near = text_features(rows, PREFERENCE)["closeness_10"].to_numpy()
    tie = (raw["winner_tie"] == "1").to_numpy()
    assert near[tie].mean() > 3 * near[~tie].mean()
