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
from pipeline.data.features import (
    BATCH,
    NEAR_CHARACTERS,
    compared,
    competing,
    measures_of,
    mirrored_features,
    text_features,
)
from pipeline.data.rows import swapped

PREFERENCE, SINGLE = load_competition("lmsys").kind, load_competition("spooky").kind
PAIR = Task(("a", "b"), None, ("a", "b"), mirror=(0, 1))
# A field may be called like the measures of a side, or like those of an option.
NOTED = Task(("a_note", "a", "b", "topic"), None, ("a", "b"))
TWO_SIDED = {"preference": PREFERENCE, "pair": PAIR, "noted pair": NOTED}
CHOICES = Task(("prompt", "a", "a_x", "b"), "prompt", options=("a", "a_x", "b"))
TASKS = {"single": SINGLE, "texts": Task(("text", "prompt"), "prompt"), "choices": CHOICES} | TWO_SIDED
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


def spread(cells: list[tuple[list, list, list]], task: Task) -> pl.DataFrame:
    """The three columns of `frame` under the names of the task's fields, some of them twice."""
    rows = frame(cells)
    return rows.select(rows.to_series(place % 3).alias(field) for place, field in enumerate(task.fields))


def one(prompt: str, a: str, b: str) -> dict[str, float]:
    return text_features(frame([([prompt], [a], [b])]), PREFERENCE).row(0, named=True)


@pytest.mark.parametrize("name", TWO_SIDED)
@settings(max_examples=40, deadline=None)
@given(cells=st.lists(st.tuples(turns, turns, turns), min_size=1, max_size=6))
def test_a_mirrored_row_has_the_mirrored_features_to_the_last_bit(name: str, cells: list) -> None:
    task = TWO_SIDED[name]
    rows = spread(cells, task)
    straight = text_features(rows, task)
    other = text_features(swapped(rows, task), task)
    assert other.equals(mirrored_features(straight, task))
    for measure in measures_of("a", straight, task):
        assert straight[f"a_{measure}"].equals(other[f"b_{measure}"].alias(f"a_{measure}"))
        assert (straight[f"diff_{measure}"] == -other[f"diff_{measure}"]).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(turns, turns, turns), min_size=1, max_size=6))
def test_options_that_change_places_take_their_features_with_them(cells: list) -> None:
    rows = spread(cells, CHOICES)
    moved = rows.rename({"a": "a_x", "a_x": "b", "b": "a"})
    straight, other = text_features(rows, CHOICES), text_features(moved, CHOICES)
    measures = measures_of("b", straight, CHOICES)
    assert measures == measures_of("a", straight, CHOICES) == measures_of("a_x", straight, CHOICES)
    for before, after in {"a": "a_x", "a_x": "b", "b": "a"}.items():
        for measure in measures:
            assert straight[f"{before}_{measure}"].equals(other[f"{after}_{measure}"])


@pytest.mark.parametrize("name", TASKS)
@settings(max_examples=40, deadline=None)
@given(cells=st.lists(st.tuples(turns, turns, turns), min_size=1, max_size=6))
def test_features_are_finite_and_belong_to_their_row_alone(name: str, cells: list) -> None:
    task = TASKS[name]
    rows = spread(cells, task)
    features = text_features(rows, task)
    assert np.isfinite(features.to_numpy()).all()
    assert set(features.dtypes) == {pl.Float32}
    assert text_features(rows[-1:], task).equals(features[-1:])


@settings(max_examples=100, deadline=None)
@given(st.text("abä", max_size=12), st.text("abä", max_size=12))
def test_nearness_of_signs_is_the_longest_common_subsequence(first: str, second: str) -> None:
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if one == other else max(table[i, j + 1], table[i + 1, j])
    near = text_features(frame([([], [first], [second])]), PAIR)["near_signs"][0]
    assert near == np.float32(2 * table[-1, -1] / (len(first) + len(second)) if first or second else 1)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Take 2 pills", "Take 20 pills", {"number_overlap": 0, "numbers_apart": 2, "same_last_word": 1}),
        ("I can eat it", "I can't eat it", {"negation_differs": 1, "same_first_word": 1}),
        ("It is not so", "It is never so", {"negation_differs": 0}),
        ("one", "one", {"near_signs": 1, "word_overlap": 1, "trigram_overlap": 1, "long_words_apart": 0}),
        ("", "", {"near_signs": 1, "trigram_overlap": 0, "same_first_word": 1, "equal_texts": 1}),
    ],
)
def test_the_likeness_of_a_pair(first: str, second: str, expected: dict[str, float]) -> None:
    row = text_features(frame([([], [first], [second])]), PAIR).row(0, named=True)
    assert {name: row[name] for name in expected} == expected


def test_only_fields_that_may_say_the_same_are_compared() -> None:
    assert [name for name, task in TWO_SIDED.items() if competing(task)] == ["preference"]
    pairs = {name: compared(task) for name, task in TASKS.items()}
    assert pairs["preference"] == pairs["single"] == compared(Task(("t", "u", "v", "w"), "t")) == []
    assert pairs["pair"] == pairs["noted pair"] == [("a", "b")]
    assert pairs["choices"] == [("a", "prompt"), ("a_x", "prompt"), ("b", "prompt")]
    assert pairs["texts"] == [("text", "prompt")]


def test_long_texts_are_compared_by_their_beginnings() -> None:
    ends = text_features(frame([([], ["x" * NEAR_CHARACTERS + "a" * 9_000_000], ["x" * NEAR_CHARACTERS])]), PAIR)
    assert ends["near_signs"][0] == 1


@pytest.mark.parametrize("task", [PREFERENCE, SINGLE, PAIR])
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
