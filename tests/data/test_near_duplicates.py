"""Which rows from elsewhere are nearly a row that is scored: what the shingles say, counted one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from support import TASKS

from pipeline.data.near_duplicates import NEAR, SHINGLE, SHORTEST, near_duplicates

WORDS = [f"word{number}" for number in range(400)]
TEXT = TASKS["text"]


def frame(texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame({TEXT.fields[0]: [[each] for each in texts]})


def shingles(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)}


def test_it_finds_what_a_comparison_of_every_pair_finds() -> None:
    draw = np.random.default_rng(0)
    scored = [" ".join(draw.choice(WORDS, draw.integers(10, 80))) for _ in range(60)]
    asked = []
    for number in range(200):
        words = scored[number % len(scored)].split()
        for _ in range(number // len(scored)):  # 0 to 3 words are others
            words[draw.integers(len(words))] = str(draw.choice(WORDS))
        asked.append(" ".join(words))
    parts = [number % 4 - 1 for number in range(len(scored))]
    found = near_duplicates(frame(asked), frame(scored), parts, replace(TEXT, group=None))
    missed = 0
    for text, its in zip(asked, found, strict=True):
        near = {
            part
            for other, part in zip(scored, parts, strict=True)
            if len(shingles(text) & shingles(other)) >= NEAR * len(shingles(text) | shingles(other))
        }
        assert its <= near  # nothing is dropped that is not near
        missed += its != near
    assert missed <= 1
    exact = near_duplicates(frame(scored), frame(scored), parts, replace(TEXT, group=None))
    assert all(part in its for part, its in zip(parts, exact, strict=True))


@pytest.mark.parametrize(
    "changed",
    [
        "THE quick   brown\nfox jumps over it",
        "The quick, brown fox jumps over it!",
        "ｔｈｅ quick brown fox jumps over it",
    ],
)
def test_case_space_and_punctuation_tell_no_rows_apart(changed: str) -> None:
    scored = frame(["The quick brown fox jumps over it"])
    assert near_duplicates(frame([changed]), scored, [2], replace(TEXT, group=None)) == [{2}]


def test_short_texts_are_shared_by_chance_and_groups_are_not() -> None:
    short = " ".join(WORDS[: SHORTEST - 1])
    assert near_duplicates(frame([short]), frame([short]), [0], replace(TEXT, group=None)) == [set()]
    # A preference: the same question with other answers belongs to one group, which folds do not part.
    task = TASKS["preference"]
    rows = pl.DataFrame({"prompt": [["Why?"], ["How?"]], "a": [["x y"], ["x"]], "b": [["z"], ["y"]]})
    scored = pl.DataFrame({"prompt": [["why ?"], ["Who?"]], "a": [["p"], ["q"]], "b": [["r"], ["s"]]})
    assert near_duplicates(rows, scored, [1, -1], task) == [{1}, set()]


def test_an_answer_is_found_on_the_other_side() -> None:
    task, long = TASKS["preference"], " ".join(WORDS[:30])
    rows = pl.DataFrame({"prompt": [["Why?"]], "a": [["no"]], "b": [[long]]})
    scored = pl.DataFrame({"prompt": [["Who?"], ["When?"]], "a": [[long], ["x"]], "b": [["r"], ["y"]]})
    assert near_duplicates(rows, scored, [1, 0], task) == [{1}]
