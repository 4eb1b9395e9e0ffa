"""From rows to sequences of token ids: rendering, shared truncation, and the report on it.

Training and kernel both come through here, so that they cannot differ. A sequence is the conversation in its order:
the prompt's first turn, the answers to it, the second turn, and so on. Where it does not fit, the budget is shared
among the fields, the last turns come first, and a turn that is cut keeps its head and its tail around a visible mark
that says how much is missing.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition, Task
from pipeline.data.prompt import prompt_of
from pipeline.data.tokens import tokens_of
from pipeline.errors import PodiumError

PROMPT = "prompt"
"""How a decoder reads that answers in tokens; the others read as their family, `encoder` or `decoder`, does."""

NEWLINE, CUT = "[NL]", "[CUT]"
MARKERS = (NEWLINE, CUT)
"""Tokens that an encoder's tokenizer gets in addition: its own drops line breaks, and a cut must be visible."""
NO_ANSWER = "(no answer)"
"""Stands for a turn that is null; an empty turn stays empty."""
WORDS = {"pair": "Text", "preference": "Answer", "choices": "Option"}
"""What a decoder reads for a side or an option. One that stands alone has no letter: all are to be read alike."""
QUESTIONS = {"classes": "Class", "labels": "Labels", "ordered": "Score", "numbers": "Value", "choice": "Correct"}
"""Outcome -> what a decoder is asked at the end; of a preference which answer is better, or how good one is alone."""
BESIDE = 2
"""A side's or option's share of a budget that is too small for all fields, those of the others being 1; what one does
not need goes to the others."""
LEAST = 8
"""A turn that could keep fewer tokens than that is left out as a whole."""
STEPS = [n * 10**power for power in range(6) for n in (1, 2, 5)]
"""A cut mark states the number of missing tokens, rounded down to one of these."""


@dataclass(frozen=True)
class Layout:
    """The token ids (int32) that a family of networks wants around the texts."""

    start: np.ndarray
    opening: dict[str, np.ndarray]
    """Field -> ids before each of its turns."""
    closing: np.ndarray
    """After each turn."""
    end: np.ndarray
    marks: list[np.ndarray]
    """The cut mark of each of STEPS."""
    shares: dict[str, int]
    """Field -> its share of the tokens where they are too few; see BESIDE."""

    def check_room(self, max_tokens: int) -> None:
        """Raises PodiumError where a prompt leaves no room for texts."""
        needed = len(self.start) + len(self.end) + LEAST * len(self.opening)
        if needed > max_tokens:
            raise PodiumError(f"max_tokens: the prompt needs at least {needed} tokens, found {max_tokens}")


@dataclass(frozen=True)
class Encoded:
    """Rows as sequences: `views` of them per row, one after the other."""

    ids: list[np.ndarray]
    """int32, each at most as long as the budget."""
    views: int
    truncation: dict[str, dict[str, float]]
    """Field -> `rows` and `tokens`, the shares that were cut."""
    cut: np.ndarray
    """(rows,) bool: the rows of which tokens are missing."""

    def __len__(self) -> int:
        return len(self.ids) // self.views

    def lengths(self) -> np.ndarray:
        """Returns the length of each row's longest sequence, (rows,)."""
        return np.array([len(each) for each in self.ids], dtype=np.int64).reshape(-1, self.views).max(axis=1)


def layouts(tokenizer: Any, family: str, competition: Competition, view: tuple[str, ...]) -> list[Layout]:
    """Returns what stands around a view's texts, once for each question that is asked about them.

    That is [CLS] and [SEP] for encoders; for decoders words, with the question at the end that the head answers.

    Raises: PodiumError where no tokens can answer.
    """

    def ids(text: str) -> np.ndarray:
        return np.array(tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)

    def token(number: int | None) -> np.ndarray:
        return np.array([] if number is None else [number], dtype=np.int32)

    beside = (*(competition.kind.sides or ()), *competition.kind.options)
    shares = {name: BESIDE if name in beside else 1 for name in view}
    if family == "encoder":
        marks = [ids(f"{CUT} {step} {CUT}") for step in STEPS]
        opening = dict.fromkeys(view, token(None))
        around = token(tokenizer.cls_token_id), opening, token(tokenizer.sep_token_id), token(None)
        return [Layout(*around, marks, shares)]
    marks = [ids(f" [... {step} tokens cut ...] ") for step in STEPS]
    alone = sum(name in beside for name in view) == 1
    opening = {}
    for name in view:
        word = name[0].upper() + name[1:].replace("_", " ")
        if name in beside:
            word = WORDS[competition.task] if alone else f"{WORDS[competition.task]} {word}"
        opening[name] = ids(f"\n\n{word}:\n")
    if family == PROMPT:
        prompt = prompt_of(tokenizer, competition)
        return [Layout(prompt.start, opening, token(None), end, marks, shares) for end in prompt.ends]
    question = QUESTIONS[competition.outcome]
    if competition.task == "preference":
        question = "Quality" if alone else "Better answer"
    return [Layout(token(tokenizer.bos_token_id), opening, token(None), ids(f"\n\n{question}:"), marks, shares)]


def encode(
    rows: pl.DataFrame,
    tokenizer: Any,
    family: str,
    competition: Competition,
    siamese: bool,
    max_tokens: int,
    cache: Path | None = None,
) -> Encoded:
    """Returns one sequence per row, view (`views_of`) and question.

    `family` is `encoder`, `decoder` or PROMPT. `rows` has a List(String) column per field. Every sequence holds at most
    `max_tokens` tokens, and the same text gives the same tokens wherever it stands. The texts' tokens are kept below
    the folder `cache` for the next call (tokens.py); it changes no result.

    Raises: PodiumError where a prompt leaves no room for texts, or no tokens can answer it.
    """
    views = views_of(competition.kind, siamese)
    forms = [(view, form) for view in views for form in layouts(tokenizer, family, competition, view)]
    for _, form in forms if family == PROMPT else ():
        form.check_room(max_tokens)
    fields = list(dict.fromkeys(name for view in views for name in view))
    tokens = _tokens(rows, fields, tokenizer, family, cache)
    counts = {name: np.zeros(4, dtype=np.int64) for name in fields}  # rows, those that were cut, tokens, those missing
    sequences = [
        _sequence({name: tokens[name][row] for name in view}, form, max_tokens, counts)
        for row in range(len(rows))
        for view, form in forms
    ]
    ids = [each for each, _ in sequences]
    missing = np.array([lost for _, lost in sequences], dtype=np.int64).reshape(-1, len(forms))
    shares = {
        name: {"rows": round(cut / max(rows, 1), 4), "tokens": round(lost / max(total, 1), 4)}
        for name, (rows, cut, total, lost) in ((name, count.tolist()) for name, count in counts.items())
    }
    return Encoded(ids, len(forms), shares, missing.sum(axis=1) > 0)


def views_of(task: Task, siamese: bool) -> list[tuple[str, ...]]:
    """Returns the fields of each sequence of a row: all in one, or one per side with what the sides have in common.

    Options have a sequence each in any case.
    """
    beside = task.options or (task.sides if siamese else None)
    return [(*task.common, each) for each in beside] if beside else [task.fields]


def _tokens(
    rows: pl.DataFrame, fields: list[str], tokenizer: Any, family: str, cache: Path | None
) -> dict[str, list[list[np.ndarray]]]:
    """Returns field -> row -> turn -> ids."""
    turns = {name: rows[name].list.len().fill_null(0).to_list() for name in fields}
    texts = pl.concat([_texts(rows[name], family) for name in fields])
    ids = iter(tokens_of(texts, tokenizer, cache))
    return {name: [list(islice(ids, count)) for count in turns[name]] for name in fields}


def _texts(column: pl.Series, family: str) -> pl.Series:
    """Returns all turns of all rows, one after the other."""
    turns = column.filter(column.list.len() > 0).explode().cast(pl.String).fill_null(NO_ANSWER)
    if family != "encoder":
        return turns
    return turns.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\n", NEWLINE, literal=True)


def _sequence(
    turns: dict[str, list[np.ndarray]], form: Layout, max_tokens: int, counts: dict[str, np.ndarray]
) -> tuple[np.ndarray, int]:
    """Returns the ids of one sequence of at most `max_tokens`, and the number of tokens that are missing."""
    around = {name: len(form.opening[name]) + len(form.closing) for name in turns}
    tokens = {name: sum(map(len, each)) for name, each in turns.items()}
    whole = {name: tokens[name] + len(each) * around[name] for name, each in turns.items()}
    quotas = _quotas(whole, max_tokens - len(form.start) - len(form.end), form.shares)
    pieces: dict[str, list[tuple[np.ndarray, ...] | None]] = {}
    lost = 0
    for name, each in turns.items():
        pieces[name], missing = _cut(each, quotas[name], around[name], form.marks)
        lost += missing
        counts[name] += (1, missing > 0, tokens[name], missing)
    ids = [form.start]
    for number in range(max(map(len, pieces.values()), default=0)):
        for name, parts in pieces.items():
            if number < len(parts) and (piece := parts[number]) is not None:
                ids += [form.opening[name], *piece, form.closing]
    return np.concatenate([*ids, form.end]), lost


def _quotas(whole: dict[str, int], budget: int, shares: dict[str, int]) -> dict[str, int]:
    """Shares the budget: who needs less than its share gets what it needs, and the rest goes to the others."""
    quotas: dict[str, int] = {}
    open_fields = dict(whole)
    while open_fields:
        total = sum(shares[name] for name in open_fields)
        left = max(0, budget - sum(quotas.values()))
        modest = {name: need for name, need in open_fields.items() if need * total <= left * shares[name]}
        if not modest:
            return quotas | {name: left * shares[name] // total for name in open_fields}
        quotas |= modest
        open_fields = {name: need for name, need in open_fields.items() if name not in modest}
    return quotas


def _cut(
    turns: list[np.ndarray], quota: int, around: int, marks: list[np.ndarray]
) -> tuple[list[tuple[np.ndarray, ...] | None], int]:
    """Returns each turn whole, cut (head, mark, tail) or left out (None), and the number of missing tokens."""
    kept: list[tuple[np.ndarray, ...] | None] = [None] * len(turns)
    missing = 0
    for place in reversed(range(len(turns))):
        turn = turns[place]
        if len(turn) + around <= quota:
            kept[place] = (turn,)
            quota -= len(turn) + around
            continue
        room = quota - around - max(map(len, marks))
        if room >= LEAST or (place == len(turns) - 1 and room >= 1):
            head = (room + 1) // 2
            kept[place] = turn[:head], _mark(len(turn) - room, marks), turn[len(turn) - (room - head) :]
            missing += len(turn) - room
        else:
            missing += len(turn)
        quota = 0  # earlier turns do not stand where a later one was cut
    return kept, missing


def _mark(missing: int, marks: list[np.ndarray]) -> np.ndarray:
    return marks[max(bisect_right(STEPS, missing) - 1, 0)]
