"""The submission file: it is written whole or not at all, and checked as strictly as a grader does.

The writer's form (columns, ids, their order) and the rows that nothing has answered come from the prior's file, which
the kernel has written before anything else. The check shares no code with the writer; rehearsal, `publish` and `submit`
use it too.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.competitions.submission import LABEL, LABELS, MEAN, TOP, submission_cells, submission_columns
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import atomic_file

SUM_TOLERANCE = 1.0e-6
"""As graders allow for rounded probabilities."""
NUMBER = re.compile(r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True)
class SubmissionForm:
    """The submission as its file holds it first: the prior for every id."""

    columns: tuple[str, ...]
    """The header, in the sample's order."""
    rows: tuple[tuple[str, ...], ...]
    """The cells of each line, the id among them."""
    place: int
    """Where in a line the id stands."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, in the file's order."""
        return tuple(row[self.place] for row in self.rows)


def read_form(path: Path, competition: Competition) -> SubmissionForm:
    """Returns the form of the submission in `path`."""
    with _opened(path) as stream:
        header, *lines = csv.reader(stream)
    return SubmissionForm(tuple(header), tuple(map(tuple, lines)), header.index(competition.submitted_id))


def write_submission(
    path: Path,
    form: SubmissionForm,
    ids: list[str],
    means: np.ndarray,
    decided: np.ndarray,
    competition: Competition,
) -> None:
    """Replaces `path` at once: every line of the form, with the cells of its id's row of `means` (rows, outputs).

    Ids are compared as they are written, then as numbers. One without a row, or whose row is not finite, keeps the
    form's cells. `decided` holds the rows' labels.
    """
    finite = np.isfinite(means[: len(ids)]).all(axis=1)
    row_of = {id_: row for row, id_ in enumerate(ids) if finite[row]}
    by_number = {as_number(id_): row for id_, row in row_of.items()}
    cells = submission_cells(means[: len(ids)], decided[: len(ids)], competition)
    columns = [None if place == form.place else cells[name] for place, name in enumerate(form.columns)]
    with atomic_file(path) as partial, _opened(partial, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(form.columns)
        for line in form.rows:
            id_ = line[form.place]
            if competition.encoding != "utf-8":  # the form has the bytes as they are, the rows what they mean
                id_ = id_.encode(errors="surrogateescape").decode(competition.encoding, errors="replace")
            row = row_of.get(id_, by_number.get(as_number(id_)))
            answered = (
                old if row is None or column is None else column[row] for old, column in zip(line, columns, strict=True)
            )
            writer.writerow(answered)


def as_number(text: str) -> str | Decimal:
    """Returns an id as the number that it is a writing of (7, 00007, 7.0), exactly, else without blanks around it."""
    text = text.strip()
    return Decimal(text) if NUMBER.fullmatch(text) else text


def validate_submission(path: Path, sample: Path, competition: Competition) -> int:
    """Returns the number of rows of the submission `path`, which has the sample's columns, ids and order.

    Raises: PodiumError naming the line where it has not, or where a cell is not what its column must hold.
    """
    found, expected = _table(path), _table(sample, competition.separator)
    if found[0] != expected[0]:
        raise PodiumError(f"{path}: expected the columns {expected[0]}, found {found[0]}")
    if len(found) != len(expected):
        raise PodiumError(f"{path}: expected {len(expected) - 1} rows, found {len(found) - 1}")
    place, what = expected[0].index(competition.submitted_id), submission_columns(competition)
    # Probabilities of all classes must sum to 1; single ones of them need not.
    summing = competition.outcome in ("classes", "choice") and set(what.values()) == set(competition.outputs)
    for number, (line, wanted) in enumerate(zip(found[1:], expected[1:], strict=True), start=2):
        where = f"{path}: line {number}"
        if len(line) != len(wanted) or line[place] != wanted[place]:
            raise PodiumError(f"{where}: expected id {wanted[place]}, found {','.join(line)[:80]}")
        numbers = []
        for name, cell in zip(found[0], line, strict=True):
            if name != competition.submitted_id:
                numbers.append(_checked(cell, what[name], f"{where}: column {name}", competition))
        if summing and not abs(math.fsum(numbers) - 1.0) <= SUM_TOLERANCE:
            raise PodiumError(f"{where}: expected a sum of 1, found {math.fsum(numbers)!r}")
    return len(found) - 1


def _checked(cell: str, what: str, where: str, competition: Competition) -> float:
    """Returns a cell as a number, 0 for labels. Raises: PodiumError where it is not what the column must hold."""
    told = f"found {cell[:60]!r}"
    if what.startswith(TOP):
        labels, most = cell.split(competition.join), int(what.removeprefix(TOP))
        if not 1 <= len(labels) <= most or len(set(labels)) < len(labels):
            raise PodiumError(f"{where}: expected up to {most} different labels, {told}")
        if unknown := set(labels) - set(competition.label_values):
            raise PodiumError(f"{where}: expected labels of the training rows, found {min(unknown)[:60]!r}")
        return 0.0
    if what == LABELS:
        labels = cell.split(competition.join) if cell else []
        if len(set(labels)) < len(labels) or not set(labels) <= set(competition.outputs):
            raise PodiumError(f"{where}: expected different labels of the training rows, {told}")
        return 0.0
    if what == LABEL:
        known = competition.label_values if competition.outcome in ("classes", "choice") else ("0", "1")
        if competition.outcome == "ordered":
            known = tuple(map(str, competition.scores))
        if cell not in known:
            raise PodiumError(f"{where}: expected one of {', '.join(known[:10])}, {told}")
        return 0.0
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    low, high = (0.0, 1.0) if competition.family.bounded else (-math.inf, math.inf)
    if what == MEAN and competition.outcome == "ordered":
        low, high = float(competition.scores[0]), float(competition.scores[-1])
    if not (math.isfinite(number) and low <= number <= high):
        kind = "a probability" if (low, high) == (0.0, 1.0) else "a finite number" if high == math.inf else "a score"
        raise PodiumError(f"{where}: expected {kind}, {told}")
    return number


def _table(path: Path, separator: str = ",") -> list[list[str]]:
    """Returns header and lines of a file with commas, or with the separator if its header has some."""
    try:
        with _opened(path) as stream:
            found = separator if separator in stream.readline() else ","
            stream.seek(0)
            lines = list(csv.reader(stream, delimiter=found))
    except OSError as error:
        raise PodiumError(f"{path}: expected a CSV file, found: {error.strerror}") from None
    if not lines:
        raise PodiumError(f"{path}: expected a header, found an empty file")
    return lines


def _opened(path: Path, mode: str = "r") -> IO[str]:
    """Opens a CSV file as text; bytes that are not UTF-8 survive a round trip."""
    csv.field_size_limit(sys.maxsize)
    return path.open(mode, encoding="utf-8-sig" if mode == "r" else "utf-8", errors="surrogateescape", newline="")
