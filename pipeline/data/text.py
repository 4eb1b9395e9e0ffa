"""From rows to sequences of token ids: rendering, shared truncation, and the report on it.

Training and kernel both come through here, so that they cannot differ. A sequence is the conversation in its order:
the prompt's first turn, the answers to it, the second turn, and so on. Where it does not fit, the budget is shared
among the fields, the last turns come first, and a turn that is cut keeps its head and its tail around a visible mark
that says how much is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.task import Task

NEWLINE, CUT = "[NL]", "[CUT]"
MARKERS = (NEWLINE, CUT)
"""Tokens that an encoder's tokenizer gets in addition: its own drops line breaks, and a cut must be visible."""
NO_ANSWER = "(no answer)"
"""Stands for a turn that is null; an empty turn stays empty."""
LABELS = {
    ("prompt", "a", "b"): ("\n\nPrompt:\n", "\n\nAnswer A:\n", "\n\nAnswer B:\n", "\n\nBetter answer:"),
    ("prompt", "a"): ("\n\nPrompt:\n", "\n\nAnswer:\n", "\n\nQuality:"),
    ("prompt", "b"): ("\n\nPrompt:\n", "\n\nAnswer:\n", "\n\nQuality:"),
    ("text",): ("\n\nText:\n", "\n\nClass:"),
}
"""View -> what a decoder reads before each field's turns, and the question at the end. A side alone has no letter."""
SHARES = {"prompt": 1, "a": 2, "b": 2, "text": 1}
"""How fields share a budget that is too small for all; what one does not need goes to the others."""
LEAST = 8
"""A turn that could keep fewer tokens than that is left out as a whole."""
STEPS = [n * 10**power for power in range(6) for n in (1, 2, 5)]
"""A cut mark states the number of missing tokens, rounded down to one of these."""


@dataclass(frozen=True)
class Layout:
    """The token ids that a family of networks wants around the texts."""

    start: list[int]
    opening: dict[str, list[int]]
    """Field -> ids before each of its turns."""
    closing: list[int]
    """After each turn."""
    end: list[int]
    marks: list[list[int]]
    """The cut mark of each of STEPS."""


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
        """(rows,) the longest of each row's sequences."""
        return np.array([len(each) for each in self.ids], dtype=np.int64).reshape(-1, self.views).max(axis=1)


def layout(tokenizer: Any, family: str, view: tuple[str, ...]) -> Layout:
    """Encoders get [CLS] and [SEP]; decoders get words, and end with the question whose answer the head gives."""

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    if family == "encoder":
        marks = [ids(f"{CUT} {step} {CUT}") for step in STEPS]
        return Layout([tokenizer.cls_token_id], {}, [tokenizer.sep_token_id], [], marks)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    marks = [ids(f" [... {step} tokens cut ...] ") for step in STEPS]
    *labels, question = LABELS[view]
    return Layout(start, {name: ids(text) for name, text in zip(view, labels, strict=True)}, [], ids(question), marks)


def encode(
    rows: pl.DataFrame, tokenizer: Any, family: str, views: Sequence[tuple[str, ...]], max_tokens: int
) -> Encoded:
    """One sequence per row and view; a view names the fields that it shows, in order.

    `rows` has a List(String) column per field. Every sequence holds at most `max_tokens` tokens, and the same text
    gives the same tokens wherever it stands.
    """
    forms = {view: layout(tokenizer, family, view) for view in views}
    fields = list(dict.fromkeys(name for view in views for name in view))
    tokens = _tokens(rows, fields, tokenizer, family)
    counts = {name: _Count() for name in fields}
    sequences = [
        _sequence({name: tokens[name][row] for name in view}, forms[view], max_tokens, counts)
        for row in range(len(rows))
        for view in views
    ]
    ids = [np.array(each, dtype=np.int32) for each, _ in sequences]
    missing = np.array([lost for _, lost in sequences], dtype=np.int64).reshape(-1, len(views))
    return Encoded(ids, len(views), {name: count.shares() for name, count in counts.items()}, missing.sum(axis=1) > 0)


def views_of(task: Task, siamese: bool) -> list[tuple[str, ...]]:
    """The fields of each sequence of a row: all in one, or one sequence per side with what the sides have in common."""
    if not (siamese and task.sides):
        return [task.fields]
    common = tuple(name for name in task.fields if name not in task.sides)
    return [(*common, side) for side in task.sides]


def decoded(tokenizer: Any, ids: np.ndarray) -> str:
    """The text that a sequence says, special tokens included."""
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False))


def _tokens(rows: pl.DataFrame, fields: list[str], tokenizer: Any, family: str) -> dict[str, list[list[list[int]]]]:
    """Field -> row -> turn -> ids; each different text is tokenised once."""
    turns = {name: rows[name].to_list() for name in fields}
    texts = {name: [[_text(turn, family) for turn in row or []] for row in turns[name]] for name in fields}
    unique = list(dict.fromkeys(text for name in fields for row in texts[name] for text in row))
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # "[SEP]" in somebody's answer is text, no separator
    spelled = {
        number: [
            part for piece in (token[:1], token[1:]) for part in backend.encode(piece, add_special_tokens=False).ids
        ]
        for number, token in zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        if number != tokenizer.unk_token_id
    }
    known = {
        text: _spelled_out(each.ids, spelled)
        for text, each in zip(unique, backend.encode_batch(unique, add_special_tokens=False), strict=True)
    }
    backend.encode_special_tokens = False
    return {name: [[known[text] for text in row] for row in texts[name]] for name in fields}


def _spelled_out(ids: list[int], spelled: dict[int, list[int]]) -> list[int]:
    """`ids` without special tokens: the vocabularies of DeBERTa hold their names as pieces, too."""
    if spelled.keys().isdisjoint(ids):
        return ids
    return [part for each in ids for part in spelled.get(each, (each,))]


def _text(turn: str | None, family: str) -> str:
    if turn is None:
        return NO_ANSWER
    return turn.replace("\r\n", "\n").replace("\n", NEWLINE) if family == "encoder" else turn


@dataclass
class _Count:
    """What was cut from one field."""

    rows: int = 0
    cut_rows: int = 0
    tokens: int = 0
    cut_tokens: int = 0

    def shares(self) -> dict[str, float]:
        return {
            "rows": round(self.cut_rows / max(self.rows, 1), 4),
            "tokens": round(self.cut_tokens / max(self.tokens, 1), 4),
        }


def _sequence(
    turns: dict[str, list[list[int]]], form: Layout, max_tokens: int, counts: dict[str, _Count]
) -> tuple[list[int], int]:
    """The ids of one sequence of at most `max_tokens`, and the number of tokens that are missing."""
    around = {name: len(form.opening.get(name, ())) + len(form.closing) for name in turns}
    whole = {name: sum(len(turn) + around[name] for turn in each) for name, each in turns.items()}
    quotas = _quotas(whole, max_tokens - len(form.start) - len(form.end))
    pieces: dict[str, list[list[int] | None]] = {}
    lost = 0
    for name, each in turns.items():
        pieces[name], missing = _cut(each, quotas[name], around[name], form.marks)
        lost += missing
        count = counts[name]
        count.rows, count.cut_rows = count.rows + 1, count.cut_rows + (missing > 0)
        count.tokens, count.cut_tokens = count.tokens + sum(map(len, each)), count.cut_tokens + missing
    ids = list(form.start)
    for number in range(max(map(len, pieces.values()), default=0)):
        for name, parts in pieces.items():
            if number < len(parts) and (piece := parts[number]) is not None:
                ids += [*form.opening.get(name, ()), *piece, *form.closing]
    return ids + form.end, lost


def _quotas(whole: dict[str, int], budget: int) -> dict[str, int]:
    """Shares the budget: who needs less than its share gets what it needs, and the rest goes to the others."""
    quotas: dict[str, int] = {}
    open_fields = dict(whole)
    while open_fields:
        total = sum(SHARES[name] for name in open_fields)
        left = max(0, budget - sum(quotas.values()))
        modest = {name: need for name, need in open_fields.items() if need * total <= left * SHARES[name]}
        if not modest:
            return quotas | {name: left * SHARES[name] // total for name in open_fields}
        quotas |= modest
        open_fields = {name: need for name, need in open_fields.items() if name not in modest}
    return quotas


def _cut(turns: list[list[int]], quota: int, around: int, marks: list[list[int]]) -> tuple[list[list[int] | None], int]:
    """Each turn whole, cut or left out (None), the last first; and the number of tokens that are missing."""
    kept: list[list[int] | None] = [None] * len(turns)
    missing = 0
    for place in reversed(range(len(turns))):
        turn = turns[place]
        if len(turn) + around <= quota:
            kept[place] = turn
            quota -= len(turn) + around
            continue
        room = quota - around - max(map(len, marks))
        if room >= LEAST or (place == len(turns) - 1 and room >= 1):
            head = (room + 1) // 2
            tail = turn[len(turn) - (room - head) :]
            kept[place] = turn[:head] + _mark(len(turn) - room, marks) + tail
            missing += len(turn) - room
        else:
            missing += len(turn)
        quota = 0  # earlier turns do not stand where a later one was cut
    return kept, missing


def _mark(missing: int, marks: list[list[int]]) -> list[int]:
    known = int(np.searchsorted(STEPS, missing, side="right")) - 1
    return marks[max(known, 0)]
