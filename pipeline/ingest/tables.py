"""A table file as text: its header and the cells of every row, in plain Python.

CSV with any separator, `.json` (a list of records, a record per line, or column -> values), `.jsonl`, `.parquet`. In
the formats that know numbers a cell is the number as it is written there; a list is its items with commas between them,
or its JSON where the competition's texts are lists of turns, or `parts` takes it apart.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError

csv.field_size_limit(2**31 - 1)  # Python's own limit is 128 KiB, less than one long answer

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
BATCH = 2048
OTHERS = (".json", ".jsonl", ".parquet")
"""Endings of tables that are no CSV files."""


class _Number(float):
    """A number of a JSON file that remembers how it is written: an id 007.50 stays what it was."""

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __str__(self) -> str:
        return self.text


def table(path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    """Yields the header, then the cells of every row.

    Raises: UnicodeDecodeError, csv.Error and PodiumError, if `strict`, for what is not in the file's form.
    """
    if path.suffix == ".parquet":
        return _parquet(path, competition, strict)
    if path.suffix in OTHERS:
        return _records(path, competition, strict)
    return _csv(path, competition, strict)


def check_encoding(path: Path, encoding: str) -> None:
    """Raises PodiumError that names the first line that is not in the encoding."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError as error:
                # The first bytes of UTF-16 are 0xff and 0xfe.
                older = encoding == "utf-8" and line[error.start] not in (0xFE, 0xFF)
                hint = "; older files are often in `encoding: latin-1`" if older else ""
                place = f"{path}: line {number}"
                raise PodiumError(
                    f"{place}: expected {encoding.upper()}, found the byte 0x{line[error.start]:02x}{hint}"
                ) from None


def _csv(path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    with _opened(path, competition, strict) as stream:
        escape = "\\" if competition.quotes == "backslash" else None
        reader = csv.reader(
            stream,
            delimiter=competition.separator,
            escapechar=escape,
            quoting=csv.QUOTE_NONE if competition.quotes == "none" else csv.QUOTE_MINIMAL,
            strict=strict,
        )
        header = next(reader, [])
        yield header
        width, number = len(header), 0
        try:
            for cells in filter(None, reader):
                number += 1
                if strict and len(cells) != width:
                    place = f"row {number} (up to line {reader.line_num})"
                    raise PodiumError(f"{path}: {place}: expected {width} fields, found {len(cells)}")
                yield cells[:width] + [""] * (width - len(cells))
        except csv.Error as error:
            place = f"row {number + 1} (up to line {reader.line_num})"
            raise PodiumError(f"{path}: {place}: expected quotes as in RFC 4180, found: {error}") from None


def _parquet(path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    number = 0
    try:
        table = pl.scan_parquet(path, glob=False)
        yield (header := table.collect_schema().names())
        whole = _whole(competition)
        for batch in table.collect_batches(chunk_size=BATCH, maintain_order=True):
            for row in batch.iter_rows():
                number += 1
                yield [written(value, competition, strict, n in whole) for n, value in zip(header, row, strict=True)]
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise PodiumError(f"{path}: row {number}: expected UTF-8, found the byte 0x{byte:02x}") from None
    except pl.exceptions.PolarsError as error:
        raise PodiumError(f"{path}: expected a parquet file, found: {str(error).splitlines()[0][:120]}") from None


def _records(path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    header: list[str] | None = None
    whole = _whole(competition)
    for number, record in enumerate(_values(path, competition, strict), start=1):
        if not isinstance(record, dict):
            if strict:
                raise PodiumError(f"{path}: row {number}: expected a record {{column: value}}, found {_kind(record)}")
            record = {}
        if header is None:
            header = list(record)
            yield header
        if strict and record.keys() != set(header):
            odd = next(name for name in (*header, *record) if (name in header) != (name in record))
            words = "a key that row 1 has, found none" if odd in header else "the keys of row 1, found one more"
            raise PodiumError(f"{path}: row {number}: column {quoted(odd)}: expected {words}")
        yield [written(record.get(name), competition, strict, name in whole) for name in header]


def _values(path: Path, competition: Competition, strict: bool) -> Iterator[Any]:
    """Yields the records of a `.json` or `.jsonl` file; of a mapping column -> values it makes records."""
    with _opened(path, competition, strict) as stream:
        whole = None if path.suffix == ".jsonl" else stream.read()
        if whole is None or _in_lines(whole):
            for line, text in enumerate(stream if whole is None else whole.split("\n"), start=1):
                if text.strip():
                    yield parsed(text, f"{path}: line {line}", strict, unique=strict)
            return
        value = parsed(whole, str(path), strict=True, unique=strict)
    if isinstance(value, dict):
        value = _by_rows(value, path, strict)
    if not isinstance(value, list):
        raise PodiumError(f"{path}: expected a list of records, or column: [values], found {_kind(value)}")
    yield from value


def _in_lines(text: str) -> bool:
    """Whether each line is a record: many files of JSON lines are named `.json`."""
    first, _, rest = text.strip().partition("\n")
    return bool(rest) and isinstance(parsed(first, "", strict=False, unique=False), dict)


def _by_rows(columns: dict[str, Any], path: Path, strict: bool) -> list[dict[str, Any]]:
    """Returns the records of a mapping column -> values, or column -> {row: value}, as pandas writes it."""
    by_key = [each for each in columns.values() if isinstance(each, dict)]
    if by_key and len(by_key) == len(columns):  # no column need have the rows in the order of another
        rows = list(dict.fromkeys(row for each in by_key for row in each))
        if short := [name for name, each in columns.items() if strict and len(each) < len(rows)]:
            row = next(row for row in rows if row not in columns[short[0]])
            raise PodiumError(f"{path}: column {quoted(short[0])}: expected a value for {quoted(row)}, found none")
        return [{name: each.get(row) for name, each in columns.items()} for row in rows]
    lists = {name: list(each.values()) if isinstance(each, dict) else each for name, each in columns.items()}
    heights = {name: len(each) for name, each in lists.items() if isinstance(each, list)}
    if len(heights) < len(lists) or len(set(heights.values())) > 1:
        raise PodiumError(f"{path}: expected lists of one length, found {str(heights or list(lists))[:120]}")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def parsed(text: str, where: str, strict: bool, unique: bool) -> Any:
    """Returns the value of a JSON text, None where it is none and not `strict`; with `unique` no key stands twice."""
    try:
        # What Python takes for a number and JSON does not know, such as NaN, is a cell without a value.
        return json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=lambda _: None,
            object_pairs_hook=_record if unique else None,
        )
    except (ValueError, RecursionError) as error:
        if not strict:
            return None
        why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise PodiumError(f"{where}: expected JSON, found: {why}") from None


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the record. Raises: ValueError for a key that stands twice: Python would keep the last value alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {quoted(next(name for name in names if names.count(name) > 1))} twice in a record")
    return found


def _whole(competition: Competition) -> set[str]:
    """Returns the columns, and some that are none, whose lists stay JSON: `parts` takes them apart."""
    ways = [way.split(".") for way in competition.parts]
    return {".".join(way[:depth]) for way in ways for depth in range(1, len(way) + 1)}


def written(value: Any, competition: Competition, strict: bool, whole: bool = False) -> str:
    """Returns a value of a JSON or parquet file as the cell of a CSV file would hold it, a list as JSON if `whole`.

    Raises: UnicodeDecodeError, if `strict`, for bytes that are no UTF-8.
    """

    def text_of(part: Any) -> str:
        # Some writers of parquet files leave texts as bytes.
        return part.decode(errors="strict" if strict else "replace") if isinstance(part, bytes) else str(part)

    if value is None or value != value:  # nothing, or NaN
        return ""
    joined = competition.turns == "plain" and not whole and isinstance(value, list)
    if joined and all(isinstance(each, str) for each in value):
        return LONE_SURROGATE.sub("\ufffd", ", ".join(value))
    text = json.dumps(value, ensure_ascii=False, default=text_of) if isinstance(value, list | dict) else text_of(value)
    return LONE_SURROGATE.sub("\ufffd", text)


def _kind(value: Any) -> str:
    return "a number" if isinstance(value, _Number) else type(value).__name__


def _opened(path: Path, competition: Competition, strict: bool) -> TextIOWrapper:
    encoding = "utf-8-sig" if competition.encoding == "utf-8" else competition.encoding
    # newline="" leaves line ends to the csv module, which tells those inside quotes from those that end a row.
    return path.open(encoding=encoding, errors="strict" if strict else "replace", newline="")


def quoted(text: str, most: int = 60) -> str:
    """Returns `text` in quotes on one line, cut after `most` characters."""
    text = text if len(text) <= most else text[:most] + "…"
    return f'"{text}"' if text.isprintable() else repr(text)
