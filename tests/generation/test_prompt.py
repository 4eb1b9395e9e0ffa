"""What is asked: rows of one fold, never of the holdout, and the same in each turn, whatever was asked before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from outcomes import COMPETITIONS, labelled_rows

from pipeline.artifacts import HOLDOUT
from pipeline.errors import PodiumError
from pipeline.generation.prompt import JUDGE, JUDGED, PLACES, ROWS, Asker, answer_key, asker, filled, read_prompt, said

COUNT = 60
FOLDS = np.arange(COUNT) % 4 - 1


def asker_of(
    name: str, prompt: str = "{task}\n{examples}\n{answer}", characters: int = 400
) -> tuple[Asker, pl.DataFrame]:
    rows, _ = labelled_rows(COMPETITIONS[name], COUNT, 1)
    made = asker(prompt, COMPETITIONS[name], rows, FOLDS.tolist(), examples=3, characters=characters, seed=7)
    return made, rows


@pytest.mark.parametrize("name", COMPETITIONS)
def test_a_prompt_holds_rows_of_one_fold_with_their_answers_and_asks_for_a_possible_one(name: str) -> None:
    made, rows = asker_of(name)
    competition, fold_of = made.competition, dict(zip(rows["id"], FOLDS.tolist(), strict=True))
    folds, labels, key = [], [], answer_key(made.competition)
    for number in range(40):
        ask = made.ask(number)
        (fold,) = {fold_of[each] for each in ask.examples}
        folds.append(fold)
        known = [json.loads(line) for line in ask.text.splitlines() if line.startswith('{"')][:3]
        assert 1 <= len(known) <= 3
        for each in known:
            assert each.keys() == {key, *competition.kind.fields}
        whole = json.loads(ask.begin + ' "x"}')
        assert whole[key] == said(ask.label, competition)
        assert list(whole) == [key, competition.kind.fields[0]]
        assert np.isfinite(
            competition.family.losses(np.array([ask.label]), competition.family.prior(rows["label"].to_numpy())[None])
        ).all()
        labels.append(json.dumps(whole[key]))
    assert set(folds) == {0, 1, 2} and HOLDOUT not in folds
    assert len(set(labels)) > 1
    if competition.outcome in ("classes", "choice"):
        assert len(set(labels)) == len(competition.outputs)


def test_a_turn_is_the_same_whatever_was_asked_before() -> None:
    one, other = asker_of("classes")[0], asker_of("classes")[0]
    first = [one.ask(number) for number in range(10)]
    assert [other.ask(number) for number in reversed(range(10))] == first[::-1]
    assert len({ask.text for ask in first}) == 10


def test_a_prompt_without_examples_shows_no_row_and_needs_none() -> None:
    assert asker_of("classes", "{task}: {answer}")[0].ask(3).examples == ()
    made, _ = asker_of("numbers", "{task}: {answer}")
    assert len(made.ask(3).examples) == 1  # its answer is that of a row


def test_rows_that_are_too_long_are_passed_over_and_none_that_fits_is_one_line() -> None:
    made, _ = asker_of("classes", characters=60)
    assert all(len(made.ask(number).examples) <= 2 for number in range(10))
    with pytest.raises(PodiumError, match="--characters: expected room for a row of the fold, the shortest has 2"):
        asker_of("classes", characters=5)[0].ask(0)


def test_what_stands_in_a_row_is_no_place_in_the_prompt() -> None:
    assert filled("{task} {row}", {"task": "{row}", "row": "x"}) == "{row} x"


def test_prompt_files(tmp_path: Path) -> None:
    assert "{examples}" in read_prompt(ROWS, PLACES) and "{row}" in read_prompt(JUDGE, JUDGED)
    file = tmp_path / "mine.txt"
    file.write_text('Like {"answer": 1}: {exampels}')
    with pytest.raises(
        PodiumError, match=r"mine\.txt: expected \{task\}, .*found \{exampels\} \(did you mean \"examples\"\?\)"
    ):
        read_prompt(file, PLACES)
    with pytest.raises(PodiumError, match=r"none\.txt: expected a prompt in UTF-8"):
        read_prompt(tmp_path / "none.txt", PLACES)
