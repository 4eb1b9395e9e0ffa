"""What a decoder has written, read strictly: a row, or why it is none; and rows as a competition's file has them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.generation.prompt import Ask, answer_key, condensed, said
from pipeline.ingest.labels import label_columns
from pipeline.ingest.tables import LONE_SURROGATE, OTHERS
from pipeline.members.beside.made import EXAMPLES, WRITTEN

NO_ROOM, NO_JSON, OTHER_KEYS, NO_TEXT = "too long a prompt", "no JSON", "other keys", "no text"
AN_EXAMPLE, A_ROW = "repeats an example", "repeats a row"


def first_object(text: str) -> dict[str, Any] | None:
    """Returns the JSON object with which a text begins, whatever follows; None where there is none, or a key stands
    twice in it."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        found, _ = json.JSONDecoder(object_pairs_hook=once).raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def row_of(reply: str | None, ask: Ask, competition: Competition) -> dict[str, str] | str:
    """Returns field -> text of a reply, its beginning included; or why it is refused. None is no reply at all."""
    if reply is None:
        return NO_ROOM
    if (found := first_object(reply)) is None:
        return NO_JSON
    key = answer_key(competition)
    if found.keys() != {key, *competition.kind.fields} or found[key] != said(ask.label, competition):
        return OTHER_KEYS
    texts = {field: found[field] for field in competition.kind.fields}
    for each in texts.values():
        if not isinstance(each, str) or not each.strip() or "\0" in each or LONE_SURROGATE.search(each):
            return NO_TEXT
    return AN_EXAMPLE if condensed(texts.values()) in ask.shown else texts


def check_writable(competition: Competition) -> None:
    """Raises PodiumError where the competition's training file is none that is written here."""
    if any(competition.train.endswith(ending) for ending in OTHERS):
        raise PodiumError(f"made rows are written as CSV, the competition's training file is {competition.train}")


def as_csv(rows: list[dict[str, str]], competition: Competition) -> str:
    """Returns a training file of the competition with `cells_of` rows, and the columns of made rows."""
    columns = [competition.id, *competition.texts.values(), *label_columns(competition), *WRITTEN, EXAMPLES]
    text = io.StringIO(newline="")
    backslash = competition.quotes == "backslash"
    writer = csv.DictWriter(
        text,
        list(dict.fromkeys(columns)),
        delimiter=competition.separator,
        quoting=csv.QUOTE_ALL,
        doublequote=not backslash,
        escapechar="\\" if backslash else None,
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def cells_of(texts: Mapping[str, str], ask: Ask, competition: Competition) -> dict[str, str]:
    """Returns column -> cell of a row: its id, texts, label and examples."""
    cells = {competition.id: f"m{ask.number}", EXAMPLES: json.dumps(list(ask.examples), ensure_ascii=False)}
    for field, column in competition.texts.items():
        one = texts[field]
        cells[column] = json.dumps([one], ensure_ascii=False) if competition.turns == "json" else one
    label, columns = competition.label, label_columns(competition)
    if competition.outcome not in ("classes", "choice"):
        return cells | {column: f"{value:.17g}" for column, value in zip(columns, ask.label, strict=True)}
    if label.one_hot:
        return cells | {column: str(int(place == ask.label)) for place, column in enumerate(columns)}
    value = competition.label_values[ask.label]
    parts = value.split(label.join) if label.joined else [value]
    if len(parts) != len(columns):
        raise PodiumError(f'label.join: expected {len(columns)} parts in "{value}", found {len(parts)}')
    return cells | dict(zip(columns, parts, strict=True))
