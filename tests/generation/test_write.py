"""Made rows from a scripted decoder: from the reply to what members learn, counted, and gone on with after a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from outcomes import COMPETITIONS, labelled_rows

from pipeline.competitions.task import Competition, Label
from pipeline.errors import PodiumError
from pipeline.generation.prompt import Ask, Asker, asker
from pipeline.generation.replies import check_writable, first_object, row_of
from pipeline.generation.write import How, Told, write_rows
from pipeline.members.beside.extra import prepare_extra
from pipeline.settings.extra import ExtraRows

COUNT = 60
FOLDS = pl.Series(np.arange(COUNT) % 4 - 1)
HOW = How("{examples} {answer}", "{row}", "mine", "", "fp32", "data", "weights", 2, 500, 1.0, 0.9, 50, 4, 3)
WRITTEN = {
    "one_hot": replace(COMPETITIONS["winner"], label=Label(one_hot=("a_won", "b_won")), turns="json"),
    "joined": replace(COMPETITIONS["classes"], classes=("x:NA", "y:q", "z:q"), label=Label(joined=("kind", "which"))),
    "tabs": replace(COMPETITIONS["classes"], separator="\t", quotes="backslash"),
}
ALL = COMPETITIONS | WRITTEN
AWKWARD = 'Says "so", \\ it\tis\n— 第 {n} \r row; and more of it'


class Scripted:
    """A decoder that replies what it is told, and remembers what it was asked."""

    def __init__(self, reply: Callable[[str, str, int], str | None], sure: Callable[[str], float] = lambda text: 1.0):
        self.reply, self.sure, self.seeds = reply, sure, list[int]()

    def write(self, asked: list[tuple[str, str]], seed: int, **how: Any) -> list[str | None]:
        self.seeds.append(seed)
        return [self.reply(text, begin, seed * 100 + n) for n, (text, begin) in enumerate(asked)]

    def yes(self, texts: list[str]) -> np.ndarray:
        return np.array([self.sure(text) for text in texts])


def asker_of(competition: Competition) -> tuple[Asker, pl.DataFrame]:
    rows, _ = labelled_rows(competition, COUNT, 1)
    return asker(HOW.prompt, competition, rows, FOLDS.to_list(), examples=2, characters=500, seed=HOW.seed), rows


def perfect(competition: Competition, text: str = AWKWARD) -> Callable[[str, str, int], str]:
    """A reply that goes on as the prompt begins it, with other texts each time."""

    def reply(prompt: str, begin: str, n: int) -> str:
        values = [text.replace("{n}", f"{n} {field}") for field in competition.kind.fields]
        rest = "".join(
            f', "{field}": {json.dumps(one)}'
            for field, one in zip(competition.kind.fields[1:], values[1:], strict=True)
        )
        return f"{begin} {json.dumps(values[0])}{rest}}} and what follows is cut"

    return reply


def made(
    competition: Competition, reply: Any, count: int = 12, how: How = HOW, judge: Any = None
) -> tuple[Told, Scripted]:
    writer = Scripted(reply)
    here, _ = asker_of(competition)
    told = write_rows(count, how, here, lambda: (writer, judge), Path("work/m.jsonl"), Path("external/m/train.csv"))
    return told, writer


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("external/m").mkdir(parents=True)
    Path("work").mkdir()


@pytest.mark.parametrize("name", ALL)
def test_what_is_written_is_learned_with_its_answer_and_stays_away_from_the_fold_of_its_examples(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    competition = ALL[name]
    monkeypatch.setattr("pipeline.members.beside.extra.load_competition", lambda *_: competition)
    monkeypatch.setattr("pipeline.members.beside.extra.check_form_of_answers", lambda *_: None)
    told, _ = made(competition, perfect(competition))
    assert (told.asked, told.rows, told.refused, told.dropped) == (12, 12, {}, None)
    if competition.quotes == "backslash":
        assert 'Says \\"so\\", ' in Path("external/m/train.csv").read_text()
    here, train = asker_of(competition)
    source = ExtraRows(path="external/m", competition="m", made=True)
    if competition.kind.group is None:
        train = train.drop("group")
    got = prepare_extra("m", source, competition, train, FOLDS, train.head(0))
    assert got.told["rows"] == 12 and got.told["made"]["by"] == {"mine": 12}
    fold_of = dict(zip(train["id"], FOLDS, strict=True))
    for row in got.rows.iter_rows(named=True):
        ask = here.ask(int(row["id"].removeprefix("m:m")))
        np.testing.assert_array_equal(np.atleast_1d(row["label"]), np.atleast_1d(ask.label))
        assert row["apart"] == [fold_of[ask.examples[0]]]
        assert all('Says "so", \\ it\tis\n— 第 ' in row[field][0] for field in competition.kind.fields)


def test_replies_that_are_no_rows_are_told_and_left_out() -> None:
    competition = COMPETITIONS["choices"]
    good = perfect(competition, "text number {n}")
    here, _ = asker_of(competition)
    shown = next(iter(here.ask(11).shown))

    def spoilt(prompt: str, begin: str, n: int) -> str | None:
        whole = good(prompt, begin, n)
        place = len(calls)
        calls.append(n)
        cases: dict[int, str | None] = {
            0: None,
            1: whole[:60],
            2: whole.replace('"A":', '"a":'),
            3: whole.replace('"B":', '"A":'),
            4: re.sub(r'"answer": "\w"', '"answer": "D"', whole),
            5: re.sub(r'"B": "[^"]*"', '"B": " "', whole),
            6: re.sub(r'"B": "[^"]*"', '"B": ["x"]', whole),
            7: re.sub(r'"B": "[^"]*"', r'"B": "\\ud800"', whole),
            9: good(prompt, begin, calls[8 * (place > 8)]),
            11: json.dumps(json.loads(begin + ' "x"}') | dict(zip(competition.kind.fields, shown, strict=True))),
        }
        return cases.get(place, whole)

    calls: list[int] = []
    told, _ = made(competition, spoilt)
    assert told.refused == {
        "no JSON": 2,
        "other keys": 2,
        "no text": 3,
        "too long a prompt": 1,
        "repeats a row": 1,
        "repeats an example": 1,
    }
    assert told.rows == 2 and told.asked == 12
    rows = pl.read_csv("external/m/train.csv", infer_schema=False)
    assert rows["id"].to_list() == ["m8", "m10"] and set(rows["verdict"]) == {"keep"}
    assert told.line("m", Path("f")).startswith("m: 12 asked, 2 rows (17%); refused: 3 no text, 2 ")


def test_the_first_object_counts_and_nothing_else_is_one() -> None:
    assert first_object(' {"a": "}"} {"b": 1}') == {"a": "}"}
    for text in ("", "x", "[1]", '{"a": 1', '{"a": 1, "a": 2}', '{"a": "line\nbreak"}', "```json {}", "[" * 100_000):
        assert first_object(text) is None


def test_what_the_judge_would_rather_not_keep_is_marked() -> None:
    competition = COMPETITIONS["classes"]
    judge = Scripted(lambda *_: None, lambda text: float("nan") if " 3" in text else 0.4 if '"x"' in text else 0.5)
    told, _ = made(competition, perfect(competition, "text {n}"), how=replace(HOW, judge="judge"), judge=judge)
    rows = pl.read_csv("external/m/train.csv", infer_schema=False)
    dropped = rows.filter(pl.col("verdict") == "drop")
    assert told.dropped == len(dropped) > 0 and set(rows.filter(pl.col("author") == "x")["verdict"]) == {"drop"}
    assert sum(told.answers.values()) == 12 - len(dropped) and "x" not in told.answers
    assert f"; the judge drops {len(dropped)}; answers kept: y " in told.line("m", Path("f"))


def test_a_run_that_was_killed_ends_with_the_same_files_and_asks_nothing_twice() -> None:
    competition = COMPETITIONS["classes"]
    journal, file = Path("work/m.jsonl"), Path("external/m/train.csv")
    _, writer = made(competition, perfect(competition))
    whole = journal.read_bytes(), file.read_bytes()
    assert len(writer.seeds) == len(set(writer.seeds)) == 3

    def dies(prompt: str, begin: str, n: int) -> str:
        if n // 100 == writer.seeds[1]:
            raise KeyboardInterrupt
        return perfect(competition)(prompt, begin, n)

    for left in (b"", b'{"number": 4, "rep', b'{"number": 4, "reply": "", "yes": null}\n'):
        journal.unlink()
        file.unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            made(competition, dies)
        assert not file.exists() and len(journal.read_bytes().splitlines()) == 5
        with journal.open("ab") as stream:
            stream.write(left)
        _, again = made(competition, perfect(competition))
        assert again.seeds == writer.seeds[1:]
        assert (journal.read_bytes(), file.read_bytes()) == whole
    _, nothing = made(competition, perfect(competition), count=5)
    assert nothing.seeds == [] and len(pl.read_csv(file)) == 8
    told, more = made(competition, perfect(competition), count=13)
    assert len(more.seeds) == 1 and told.rows == 16


def test_lines_for_what_is_wrong() -> None:
    competition = COMPETITIONS["classes"]
    with pytest.raises(PodiumError, match=r"work/m\.jsonl: none of 12 replies is a row: \{'no JSON': 12\}"):
        made(competition, lambda prompt, begin, n: begin)
    with pytest.raises(PodiumError, match=r"m\.jsonl: was begun with another temperature, seed: take another NAME, or"):
        made(competition, perfect(competition), how=replace(HOW, temperature=0.5, seed=4))
    Path("work/m.jsonl").unlink()
    Path("external/m/train.csv").write_text("mine")
    with pytest.raises(PodiumError, match=r"train\.csv: is there already, and work/m\.jsonl is not: take another NAME"):
        made(competition, perfect(competition))
    with pytest.raises(PodiumError, match=r"made rows are written as CSV, the competition's training file is t\.jsonl"):
        check_writable(replace(competition, train="t.jsonl"))


def test_a_reply_is_read_by_its_own_turn() -> None:
    competition = COMPETITIONS["classes"]
    here, _ = asker_of(competition)
    asks: list[Ask] = [here.ask(n) for n in range(6)]
    other = next(ask for ask in asks if ask.label != asks[0].label)
    assert row_of(perfect(competition)("", asks[0].begin, 0), other, competition) == "other keys"
