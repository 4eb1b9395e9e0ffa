"""Made rows, asked for batch by batch: what a decoder replied stands in a journal, what can be read in a training file.

make rows NAME=quiz MODEL=llama ROWS=1000

The journal gets a batch at a time, so a run that was killed goes on at its last whole batch; a turn's draws depend on
its number alone. The training file is written from the journal, at the end of each run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.competitions.task import Competition
from pipeline.data.prompt import BEGINNING
from pipeline.errors import PodiumError
from pipeline.files import write_text
from pipeline.generation.prompt import Ask, Asker, as_json, condensed, filled
from pipeline.generation.replies import A_ROW, as_csv, cells_of, row_of
from pipeline.training.seeds import seed_of

SURE = 0.5
"""A judge keeps a row that it would rather answer with Yes than with No."""


class Writer(Protocol):
    """What writes and judges: a decoder.Generator."""

    def write(
        self, asked: list[tuple[str, str]], seed: int, *, temperature: float, top_p: float, tokens: int
    ) -> list[str | None]: ...

    def yes(self, texts: list[str]) -> np.ndarray: ...


@dataclass(frozen=True)
class How:
    """Everything on which replies depend: a journal goes on under the same alone."""

    prompt: str
    judge_prompt: str
    model: str
    judge: str
    """Empty: none is asked, and every row that can be read is kept."""
    precision: str
    data: str
    """Hashes of the training rows and the folds."""
    weights: str
    """Hashes of what writes and judges."""
    examples: int
    characters: int
    temperature: float
    top_p: float
    tokens: int
    batch: int
    seed: int


@dataclass(frozen=True)
class Turn:
    """A line of the journal."""

    number: int
    reply: str | None
    """Its beginning included; None where the prompt was too long."""
    yes: float | None
    """How likely the judge says Yes; None where it was not asked."""


@dataclass(frozen=True)
class Told:
    """What came of it."""

    asked: int
    refused: dict[str, int]
    """Why -> how many replies were no rows."""
    rows: int
    dropped: int | None
    """By the judge, of `rows`; None without one."""
    answers: dict[str, int]
    """Of the rows that were not dropped."""

    def line(self, name: str, file: Path) -> str:
        """Returns it in one line."""
        refused = ", ".join(f"{count} {why}" for why, count in self.refused.items()) or "none"
        judged = "" if self.dropped is None else f"; the judge drops {self.dropped}"
        answers = ", ".join(f"{answer} {count}" for answer, count in self.answers.items())
        return (
            f"{name}: {self.asked} asked, {self.rows} rows ({self.rows / max(self.asked, 1):.0%}); refused: {refused}"
            f"{judged}; answers kept: {answers or 'none'}; {file}"
        )


def write_rows(
    count: int, how: How, asker: Asker, opened: Callable[[], tuple[Writer, Writer | None]], journal: Path, file: Path
) -> Told:
    """Asks for `count` rows, in whole batches, and writes those that can be read to the training file `file`.

    opened: called where something is left to ask; the writer, and the judge where there is one.

    Raises: PodiumError where the journal was begun in another way, `file` is not from it, or no reply is a row.
    """
    turns = _begun(how, journal, file)
    batches, done = -(-count // how.batch), len(turns) // how.batch
    if done < batches:
        writer, judge = opened()
        for batch in range(done, batches):
            asks = [asker.ask(number) for number in range(batch * how.batch, (batch + 1) * how.batch)]
            found = _batch(asks, seed_of(how.seed, batch), how, writer, judge, asker.competition)
            with journal.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"{json.dumps(asdict(each), ensure_ascii=False)}\n" for each in found))
            turns += found
            print(f"{len(turns)} of {batches * how.batch} asked", flush=True)
    rows, told = _rows(turns[: batches * how.batch], how, asker)
    if not rows:
        raise PodiumError(f"{journal}: none of {told.asked} replies is a row: {told.refused}; look at them there")
    write_text(file, as_csv(rows, asker.competition))
    return told


def _begun(how: How, journal: Path, file: Path) -> list[Turn]:
    """Returns the turns of whole batches so far; begins the journal where there is none."""
    head = asdict(how)
    if not journal.is_file():
        if file.exists():
            raise PodiumError(f"{file}: is there already, and {journal} is not: take another NAME")
        write_text(journal, f"{json.dumps(head, ensure_ascii=False)}\n")
        return []
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    before = json.loads(lines[0])
    if other := [key for key in head if before.get(key) != head[key]]:
        raise PodiumError(f"{journal}: was begun with another {', '.join(other)}: take another NAME, or delete it")
    whole = [line for line in lines[1:] if line.endswith("\n")]  # a killed run may have left half a line
    whole = whole[: len(whole) // how.batch * how.batch]
    if len(whole) < len(lines) - 1:
        write_text(journal, "".join([lines[0], *whole]))
    return [Turn(**json.loads(line)) for line in whole]


def _batch(
    asks: list[Ask], seed: int, how: How, writer: Writer, judge: Writer | None, competition: Competition
) -> list[Turn]:
    pairs = [(ask.text, ask.begin) for ask in asks]
    replies = writer.write(pairs, seed, temperature=how.temperature, top_p=how.top_p, tokens=how.tokens)
    sure: dict[int, float] = {}
    if judge is not None:
        rows = [row_of(reply, ask, competition) for reply, ask in zip(replies, asks, strict=True)]
        read = {
            ask.number: as_json(row, ask.label, competition)
            for row, ask in zip(rows, asks, strict=True)
            if isinstance(row, dict)
        }
        task = competition.prompt or BEGINNING
        texts = [filled(how.judge_prompt, {"task": task, "row": line}) for line in read.values()]
        sure = dict(zip(read, judge.yes(texts).tolist(), strict=True)) if texts else {}
    return [Turn(ask.number, reply, sure.get(ask.number)) for ask, reply in zip(asks, replies, strict=True)]


def _rows(turns: list[Turn], how: How, asker: Asker) -> tuple[list[dict[str, str]], Told]:
    """Returns the cells of each row that can be read and repeats none before it, and what is told of them."""
    competition, refused, answers = asker.competition, Counter[str](), Counter[str]()
    rows: list[dict[str, str]] = []
    seen: set[tuple[str, ...]] = set()
    dropped = 0
    for turn in turns:
        ask = asker.ask(turn.number)
        row = row_of(turn.reply, ask, competition)
        if isinstance(row, dict) and (key := condensed(row.values())) in seen:
            row = A_ROW
        if isinstance(row, str):
            refused[row] += 1
            continue
        seen.add(key)
        keeps = not how.judge or (turn.yes is not None and turn.yes >= SURE)  # NaN, too long to judge, is no Yes
        dropped += not keeps
        if keeps:
            answers[_answer(ask, competition)] += 1
        rows.append(
            cells_of(row, ask, competition)
            | {"generator": Path(how.model).name, "verdict": "keep" if keeps else "drop"}
        )
    counted = dict(sorted(answers.items()))
    told = Told(len(turns), dict(refused.most_common()), len(rows), dropped if how.judge else None, counted)
    return rows, told


def _answer(ask: Ask, competition: Competition) -> str:
    if competition.outcome in ("classes", "choice"):
        return competition.label_values[ask.label]
    return " ".join(f"{value:g}" for value in ask.label)
