"""What a decoder is asked for a made row: a prompt file, filled with training rows of one fold and an answer.

The holdout's rows are never shown. All rows of a prompt are of one fold, so that what comes of it must stay away from a
single fold model: the one that is scored on them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.family import Categorical, Ordinal
from pipeline.competitions.task import Competition
from pipeline.data.prompt import BEGINNING
from pipeline.data.rows import joined_turns
from pipeline.errors import PodiumError, nearest

ROWS, JUDGE = Path(__file__).with_name("rows.txt"), Path(__file__).with_name("judge.txt")
"""The prompts where the user names no other file."""
PLACES, JUDGED = ("task", "examples", "answer"), ("task", "row")
"""What may stand in braces in a prompt of either kind."""
_PLACE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Ask:
    """One row that is asked for."""

    number: int
    examples: tuple[str, ...]
    """The ids of the training rows that its prompt shows, or has its answer from."""
    label: Any
    """As train.parquet has it: a class index, or a list of numbers."""
    text: str
    begin: str
    """How the reply begins: with the answer, so that the texts are written for it."""
    shown: frozenset[tuple[str, ...]]
    """The condensed texts of the examples, which it must not repeat."""


@dataclass(frozen=True)
class Asker:
    """Fills a prompt."""

    prompt: str
    competition: Competition
    rows: Mapping[int, pl.DataFrame]
    """Fold -> training rows whose answer is known; each with a column `_text` per field, its turns as one text."""
    examples: int
    """So many at most."""
    characters: int
    """So many have all examples together at most; a row that is too long for what is left is passed over."""
    seed: int

    def ask(self, number: int) -> Ask:
        """Returns what is asked in the turn `number`, whatever was asked before."""
        draw = np.random.default_rng([self.seed, number])
        fold = list(self.rows)[number % len(self.rows)]
        rows, competition = self.rows[fold], self.competition
        order, taken, left = draw.permutation(len(rows)), list[int](), self.characters
        wanted = self.examples if "{examples}" in self.prompt else 0
        for place in order[:-1]:
            size = int(rows["_size"][int(place)])
            if len(taken) < wanted and size <= left:
                taken.append(int(place))
                left -= size
        if wanted and not taken:
            raise PodiumError(
                f"--characters: expected room for a row of the fold, the shortest has {rows['_size'].sort()[0]}, found "
                f"{self.characters}"
            )
        family, ids = competition.family, [rows["id"][place] for place in taken]
        if isinstance(family, Categorical) and not competition.candidates:
            label: Any = int(draw.integers(family.outputs))
        elif isinstance(family, Ordinal):
            label = [float(draw.integers(competition.scores[0], competition.scores[-1] + 1))]
        else:  # numbers and sets of labels go together as they do in some row, so that row counts as an example, too
            label = _plain(rows["label"][int(order[-1])])
            ids.append(rows["id"][int(order[-1])])
        texts = [{field: rows[f"_{field}"][place] for field in competition.kind.fields} for place in taken]
        lines = [
            as_json(each, _plain(rows["label"][place]), competition) for place, each in zip(taken, texts, strict=True)
        ]
        answer = said(label, competition)
        values = {"task": competition.prompt or BEGINNING, "examples": "\n".join(lines), "answer": json.dumps(answer)}
        begin = json.dumps({answer_key(competition): answer}, ensure_ascii=False)[:-1]
        begin += f', "{competition.kind.fields[0]}":'
        shown = frozenset(condensed(each.values()) for each in texts)
        return Ask(number, tuple(dict.fromkeys(ids)), label, filled(self.prompt, values), begin, shown)


def asker(
    prompt: str,
    competition: Competition,
    train: pl.DataFrame,
    folds: Sequence[int],
    *,
    examples: int,
    characters: int,
    seed: int,
) -> Asker:
    """Returns what fills `prompt` from the rows of `train` outside the holdout; folds (rows of train,)."""
    texts = [joined_turns(train, field).alias(f"_{field}") for field in competition.kind.fields]
    rows = train.select("id", "label").with_columns(texts)
    rows = rows.with_columns(pl.sum_horizontal(pl.col(each.name).str.len_chars() for each in texts).alias("_size"))
    of = np.asarray(folds)
    labels = np.asarray(train["label"].to_numpy(), dtype=np.float64).reshape(len(train), -1)
    known = np.isfinite(labels).all(axis=1) & (of != HOLDOUT)
    parts = {int(fold): rows.filter(pl.Series(known & (of == fold))) for fold in sorted(set(of[known].tolist()))}
    if min(map(len, parts.values()), default=0) < 2:
        raise PodiumError("folds: expected two rows or more with known answers in each fold to draw examples from")
    return Asker(prompt, competition, parts, examples, characters, seed)


def read_prompt(file: Path, places: Sequence[str]) -> str:
    """Returns the text of a prompt file. Raises: PodiumError where there is none, or for a place that nothing fills."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PodiumError(f"{file}: expected a prompt in UTF-8: {error}") from None
    for name in _PLACE.findall(text):
        if name not in places:
            expected = ", ".join("{" + each + "}" for each in places)
            raise PodiumError(f"{file}: expected {expected} in braces, found {{{name}}}{nearest(name, places)}")
    return text


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """Returns `prompt` with each {name} replaced; what stands in a value is text."""
    return _PLACE.sub(lambda found: values[found[1]], prompt)


def answer_key(competition: Competition) -> str:
    """Returns the key of the answer in a row's JSON, which is none of the fields' names."""
    return next(name for name in ("answer", "label", "its_answer") if name not in competition.texts)


def said(label: Any, competition: Competition) -> Any:
    """Returns a label as a row's JSON has it: a class or option by its name, a score, a list of labels, numbers."""
    if competition.outcome in ("classes", "choice"):
        return competition.label_values[label]
    if competition.outcome == "ordered":
        return int(label[0])
    if competition.outcome == "labels":
        return [name for name, value in zip(competition.outputs, label, strict=True) if value > 0.5]
    numbers = [float(f"{value:.6g}") for value in label]
    return numbers[0] if len(numbers) == 1 else dict(zip(competition.outputs, numbers, strict=True))


def as_json(texts: Mapping[str, str], label: Any, competition: Competition) -> str:
    """Returns a row as one line: its answer first, then its fields."""
    return json.dumps({answer_key(competition): said(label, competition)} | dict(texts), ensure_ascii=False)


def condensed(texts: Any) -> tuple[str, ...]:
    """Returns texts without case and white space, as pipeline.data.rows.condensed compares them."""
    return tuple("".join(unicodedata.normalize("NFKC", each).lower().split()) for each in texts)


def _plain(label: Any) -> Any:
    return label.to_list() if isinstance(label, pl.Series) else [label] if isinstance(label, float) else label
