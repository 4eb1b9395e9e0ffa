"""Every sentence about what is wrong with a file of the competition.

ingest.py reads with polars. It comes here to check columns and ids, and where polars stumbles or doubts a row.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import polars as pl

from pipeline.competitions.submission import LABEL, LABELS, MEAN, TOP, submission_columns
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, nearest
from pipeline.ingest.cells import plain_rows, read_header
from pipeline.ingest.labels import label_fault, moment
from pipeline.ingest.tables import LONE_SURROGATE, quoted

MANY = 20
"""Column names that a message lists at most."""


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


def check_columns(path: Path, header: list[str], needed: Sequence[str], ignored: Sequence[str]) -> None:
    """Raises PodiumError for a needed column that is missing, and for one that is neither needed nor ignored.

    An unnamed first column is a running number. `*` in `ignored` stands for every column that is not needed.
    """
    for name in needed:
        if name not in header:
            near = nearest(name, [other for other in header if other not in needed])
            raise PodiumError(f"{path}: missing column {quoted(name)}{near}, found {_listed(map(quoted, header))}")
    for place, name in enumerate(header):
        if name not in needed and name not in ignored and "*" not in ignored and (name or place):
            raise PodiumError(
                f"{path}: unexpected column {quoted(name)}: expected {_listed(needed)}; if it is of no use, add it "
                "under `ignored` in the competition's YAML file"
            )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MANY]) + (", ..." if len(names) > MANY else "")


def find_fault(path: Path, competition: Competition, labelled: bool, most: int | None = None) -> None:
    """Checks every row of train.csv (`labelled`) or test.csv in file order; with `most`, so many of them.

    Raises: PodiumError for the first fault; rows count from 1 below the header.
    """
    at = {name: place for place, name in enumerate(read_header(path, competition))}
    first_time, id_column = None, competition.id_column(path)
    for number, cells in enumerate(plain_rows(path, competition, strict=True, most=most), start=1):
        row = {name: cells[place] for name, place in at.items()}
        identity = row[id_column]
        if not identity:
            raise PodiumError(f"{path}: row {number}: column {quoted(id_column)}: expected an id, found nothing")
        fault = _text_fault(row, competition)
        if labelled:
            first_time = first_time or row.get(competition.time or "")
            fault = fault or label_fault(row, competition) or _time_fault(row, competition, first_time)
        if fault:
            raise PodiumError(f"{path}: row {number} (id {quoted(identity)}): {fault}")


def _time_fault(row: dict[str, str], competition: Competition, first: str | None) -> str | None:
    if competition.time is None:
        return None
    found, usual = (moment(cell or "") for cell in (row[competition.time], first))
    if found and (not usual or usual[0] == found[0]):
        return None
    words = f"a {usual[0]} as in row 1" if usual and found else "a number or an ISO date such as 2024-05-31"
    return f"column {quoted(competition.time)}: expected {words}, found {quoted(row[competition.time])}"


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


def check_sample(path: Path, header: list[str], competition: Competition) -> None:
    """Raises PodiumError where a sample submission has other columns than the answers that the YAML file states."""
    expected = [competition.submitted_id, *submission_columns(competition)]
    if sorted(header) == sorted(expected):  # in any order: the kernel writes the sample's
        return
    found = f"expected the columns {_cut(', '.join(expected))}, found {_cut(', '.join(map(quoted, header)))}"
    hint = _fitting_answers(path, header, competition) if competition.submitted_id in header else ""
    raise PodiumError(f"{path}: {found}{hint}"[: len(str(path)) + 202])


def _cut(text: str, most: int = 75) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _fitting_answers(path: Path, header: list[str], competition: Competition) -> str:
    """Returns `; write answers: ...` where the cells of a sample submission tell what stands in it, else nothing."""
    columns = [name for name in header if name != competition.submitted_id]
    rows = [dict(zip(header, cells, strict=True)) for cells in islice(plain_rows(path, competition, strict=False), 50)]
    if len(columns) != 1:
        if len(columns) != len(competition.outputs):
            return ""
        pairs = (f"{column}: {output}" for column, output in zip(columns, competition.outputs, strict=True))
        return f"; perhaps answers: {{{', '.join(pairs)}}}"
    (column,), values = columns, competition.label_values
    if competition.label.listed is not None:
        return f"; write answers: {{{column}: {LABELS}}}"
    cells = [row[column] for row in rows]
    ranked = competition.outcome in ("classes", "choice")
    if ranked and cells and all(cell in values for cell in cells):
        return f"; write answers: {{{column}: {LABEL}}}"
    for join in (competition.join, " ", ",", "|", ";"):
        parts = [cell.split(join) for cell in cells]
        if ranked and parts and all(len(each) > 1 and set(each) <= set(values) for each in parts):
            more = "" if join == competition.join else f' and join: "{join}"'
            return f"; write answers: {{{column}: {TOP}{max(map(len, parts))}}}{more}"
    if all(re.fullmatch(r"-?[0-9]*\.?[0-9]+(e-?[0-9]+)?", cell) for cell in cells):
        which = competition.outputs[-1] if ranked else MEAN
        return f"; write answers: {{{column}: {which}}}"
    return ""
