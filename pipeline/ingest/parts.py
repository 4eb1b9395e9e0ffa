"""Cells that hold a list or a record, taken apart: `parts` of the YAML file makes columns of them.

A cell is JSON, or a list as Python writes it, which is what pandas leaves in a CSV file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, nearest
from pipeline.ingest.tables import parsed, quoted, written


def taken_apart(rows: Iterator[list[str]], path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    """Yields header and rows with the columns of `parts` behind.

    Raises: PodiumError for a column of train.csv that is missing and, if `strict`, for a cell that cannot be taken
    apart; else its parts are empty.
    """
    header = next(rows, [])
    known = {way: _column_of(way, header) for way in competition.parts}
    for way, column in known.items():
        if column is None and competition.part(path) == "train":
            raise PodiumError(f"{path}: missing column {quoted(way)} of parts{nearest(way, header)}")
    yield [*header, *(name for way, names in competition.parts.items() if known[way] is not None for name in names)]
    for number, cells in enumerate(rows, start=1):
        new = []
        for way, names in competition.parts.items():
            if (column := known[way]) is None:
                continue
            try:
                new += _parts(cells[header.index(column)], way.removeprefix(column)[1:], names, competition, strict)
            except ValueError as why:
                if strict:
                    raise PodiumError(f"{path}: row {number}: column {quoted(column)}: {why}") from None
                new += [""] * len(names)
        yield [*cells, *new]


def _column_of(way: str, header: list[str]) -> str | None:
    """Returns the column that a way such as `question.choices.text` begins with: a column's name may hold dots."""
    found = [name for name in header if way == name or way.startswith(f"{name}.")]
    return max(found, key=len) if found else None


def _parts(cell: str, keys: str, names: tuple[str, ...], competition: Competition, strict: bool) -> list[str]:
    """Returns what the keys lead to as a cell for one name, and its items for several; those it lacks are empty.

    Raises: ValueError for a cell that is no JSON, and for more items than names.
    """
    if not cell:
        return [""] * len(names)
    value = parsed(cell, "", strict=False, unique=False)
    if value is None:
        value = _python(cell)
    for key in filter(None, keys.split(".")):
        value = [_at(each, key, cell) for each in value] if isinstance(value, list) else _at(value, key, cell)
    if len(names) == 1:
        return [written(value, competition, strict)]
    items = [] if value is None else value
    if not isinstance(items, list) or len(items) > len(names):
        found = f"a list of {len(items)}" if isinstance(items, list) else quoted(str(items))
        raise ValueError(f"expected a list of {len(names)}, found {found}")
    return [written(item, competition, strict) for item in items] + [""] * (len(names) - len(items))


def _at(value: Any, key: str, cell: str) -> Any:
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"expected a record with {quoted(key)}, found {quoted(cell)}")
    return None if value is None else value.get(key)


def _python(cell: str) -> Any:
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"expected a list or a record in JSON, found {quoted(cell)}") from None
