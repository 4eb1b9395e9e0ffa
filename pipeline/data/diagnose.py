"""The slow and exact reading of a CSV file in plain Python, and every sentence about what is wrong with one.

ingest.py reads with polars. It comes here for the header, for checks of ids, and where polars stumbles or doubts a row.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, nearest

csv.field_size_limit(2**31 - 1)  # Python's own limit is 128 KiB, less than one long answer

ONE_HOT = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
BATCH = 2048
PACKED = (".zip", ".gz", ".7z", ".bz2", ".xz", ".zst")


def label_columns(competition: Competition) -> tuple[str, ...]:
    """Returns the columns of train.csv that hold the answer."""
    label = competition.label
    return label.one_hot or ((label.column,) if label.column is not None else ())


def label_values(competition: Competition) -> tuple[str, ...]:
    """Returns what stands in a label column that is not one-hot, in the order of the classes."""
    return competition.label.values or competition.outputs


def turns_of(cell: str) -> list[str | None]:
    """Returns the turns in a cell that holds a JSON list of strings and nulls.

    Takes what Python's json takes, and raw line breaks and tabs inside strings too. Half of a surrogate pair, which
    no UTF-8 file can hold, becomes U+FFFD.

    Raises: ValueError that says why it holds something else.
    """
    try:
        turns = json.loads(cell, strict=False)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON, {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("lists in lists in lists") from None
    if not isinstance(turns, list):
        raise ValueError("not a list")
    for place, turn in enumerate(turns, start=1):
        if not (turn is None or isinstance(turn, str)):
            raise ValueError(f"turn {place} is neither a string nor null")
    return [turn and LONE_SURROGATE.sub("\ufffd", turn) for turn in turns]


def read_header(path: Path, competition: Competition, strict: bool = True) -> list[str]:
    """Returns the column names of a CSV file.

    Raises: PodiumError where there is no file or no header and, if `strict`, for what is not UTF-8, broken quoting or a
    repeated name.
    """
    separator = competition.separator
    if len(separator.encode()) != 1 or separator in '\r\n"\\':
        raise PodiumError(f"{path}: separator: expected one ASCII character, found {quoted(separator)}")
    if not path.is_file():
        packed = next((file for file in (Path(f"{path}{end}") for end in PACKED) if file.is_file()), None)
        raise PodiumError(f"{path}: no such file" + (f"; unpack {packed.name} beside it" if packed else ""))
    if not path.stat().st_size:
        raise PodiumError(f"{path}: expected a line of column names, found an empty file")
    try:
        with _opened(path, strict) as stream:
            header: list[str] = next(_reader(stream, competition, strict), [])
    except UnicodeDecodeError:
        check_utf8(path)
        raise
    except csv.Error as error:
        raise PodiumError(f"{path}: column names: expected quotes as in RFC 4180, found: {error}") from None
    if not header:
        raise PodiumError(f"{path}: expected a line of column names, found an empty line")
    for place, name in enumerate(header):
        if strict and name in header[:place]:
            raise PodiumError(f"{path}: column {quoted(name)} stands twice in the header")
    return header


def check_columns(path: Path, header: list[str], needed: Sequence[str], ignored: Sequence[str]) -> None:
    """Raises PodiumError for a needed column that is missing, and for one that is neither needed nor ignored."""
    for name in needed:
        if name not in header:
            found = ", ".join(map(quoted, header[:20]))
            near = nearest(name, [other for other in header if other not in needed])
            raise PodiumError(f"{path}: missing column {quoted(name)}{near}, found {found}")
    for name in header:
        if name not in needed and name not in ignored:
            raise PodiumError(
                f"{path}: unexpected column {quoted(name)}: expected {', '.join(needed)}; if it is of no use, add it "
                "under `ignored` in the competition's YAML file"
            )


def check_utf8(path: Path) -> None:
    """Raises PodiumError that names the first line that is not UTF-8."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                raise PodiumError(f"{path}: line {number}: expected UTF-8, found the byte 0x{byte:02x}") from None


def plain_rows(path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    """Yields the cells of every data row; blank lines are passed over.

    Where `strict` is False, undecodable bytes become U+FFFD, short rows are filled up and long ones cut.

    Raises: PodiumError, if `strict`, for what is not UTF-8, for broken quoting and for a row of the wrong length.
    """
    if strict:
        check_utf8(path)
    with _opened(path, strict) as stream:
        reader = _reader(stream, competition, strict)
        width, number = len(next(reader)), 0
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


def scan_by_hand(
    path: Path, header: list[str], columns: list[str], competition: Competition, strict: bool
) -> pl.LazyFrame:
    """Returns the named columns as String, in batches, through `plain_rows`; an empty cell is ""."""
    places, schema = [header.index(column) for column in columns], dict.fromkeys(columns, pl.String)

    def batches(*_: object) -> Iterator[pl.DataFrame]:
        waiting: list[list[str]] = []
        for cells in plain_rows(path, competition, strict):
            waiting.append([cells[place] for place in places])
            if len(waiting) == BATCH:
                yield pl.DataFrame(waiting, schema=schema, orient="row")
                waiting = []
        yield pl.DataFrame(waiting, schema=schema, orient="row")

    return register_io_source(batches, schema=schema)


def find_fault(path: Path, competition: Competition, labelled: bool) -> None:
    """Checks every row of train.csv (`labelled`) or test.csv in file order.

    Raises: PodiumError for the first fault; rows count from 1 below the header.
    """
    at = {name: place for place, name in enumerate(read_header(path, competition))}
    for number, cells in enumerate(plain_rows(path, competition, strict=True), start=1):
        row = {name: cells[place] for name, place in at.items()}
        identity = row[competition.id]
        if not identity:
            raise PodiumError(f"{path}: row {number}: column {quoted(competition.id)}: expected an id, found nothing")
        fault = _text_fault(row, competition) or (_label_fault(row, competition) if labelled else None)
        if fault:
            raise PodiumError(f"{path}: row {number} (id {quoted(identity)}): {fault}")


def _text_fault(row: dict[str, str], competition: Competition) -> str | None:
    if competition.turns == "plain":
        return None
    lengths = {}
    for column in competition.texts.values():
        try:
            lengths[column] = len(turns_of(row[column]))
        except ValueError as why:
            return f"column {quoted(column)}: expected a JSON list of turns, found {quoted(row[column])}: {why}"
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} in {column}" for column, length in lengths.items())
        return f"expected as many turns in every text column, found {found}"
    return None


def _label_fault(row: dict[str, str], competition: Competition) -> str | None:
    found = {column: row[column] for column in label_columns(competition)}
    one_hot = competition.label.one_hot is not None
    known = tuple(ONE_HOT) if one_hot else label_values(competition)
    for column, value in found.items():
        if value not in known:
            some = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            return f"column {quoted(column)}: expected one of {some}, found {quoted(value)}{nearest(value, known)}"
    if one_hot and sum(ONE_HOT[value] for value in found.values()) != 1:
        return f"expected exactly one 1 among {', '.join(found)}, found {', '.join(found.values())}"
    return None


def check_ids(path: Path, ids: pl.Series) -> None:
    """Raises PodiumError where there are no rows, or an id stands twice."""
    if not len(ids):
        raise PodiumError(f"{path}: expected rows below the header, found none")
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        first, second = (ids == repeated[0]).arg_true()[:2] + 1
        raise PodiumError(f"{path}: rows {first} and {second} have the same id {quoted(repeated[0])}")


def warn_of_shared_ids(test_csv: Path, test_ids: pl.Series, train_csv: Path, train_ids: pl.Series) -> None:
    """Prints a warning where an id is in both files: they may count their rows from 0 each.

    Nothing joins the files by it, but a member of kind external knows rows by their ids alone.
    """
    both = test_ids.filter(test_ids.is_in(train_ids.implode()))
    if len(both):
        row, train_row = ((ids == both[0]).arg_true()[0] + 1 for ids in (test_ids, train_ids))
        place = f"{train_csv}, row {train_row} ({len(both)} in all)"
        alike = "a member of kind external would answer both rows alike"
        print(f"warning: {test_csv}: row {row}: id {quoted(both[0])} is also in {place}; {alike}", file=sys.stderr)


def check_holds(path: Path, ids: pl.Series, other: Path, other_ids: pl.Series) -> None:
    """Raises PodiumError where `path` lacks an id of `other`."""
    lacking = other_ids.filter(~other_ids.is_in(ids.implode()))
    if len(lacking):
        raise PodiumError(
            f"{path}: expected the ids of {other}, {quoted(lacking[0])} is missing ({len(lacking)} in all)"
        )


def quoted(text: str, most: int = 60) -> str:
    """Returns `text` in quotes on one line, cut after `most` characters."""
    text = text if len(text) <= most else text[:most] + "…"
    return f'"{text}"' if text.isprintable() else repr(text)


def _reader(stream: TextIOWrapper, competition: Competition, strict: bool) -> Any:
    escape = "\\" if competition.quotes == "backslash" else None
    return csv.reader(stream, delimiter=competition.separator, escapechar=escape, strict=strict)


def _opened(path: Path, strict: bool) -> TextIOWrapper:
    # newline="" leaves line ends to the csv module, which tells those inside quotes from those that end a row.
    return path.open(encoding="utf-8-sig", errors="strict" if strict else "replace", newline="")
