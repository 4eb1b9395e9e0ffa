"""The submission file: it is written whole or not at all, and checked against the competition's own files.

The writer's form (columns, ids, their order) is the prior's file, which the kernel has written before anything else.
The check shares no code with the writer.
"""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import atomic_file

SMALLEST_PROBABILITY = 1.0e-7
"""No class is ruled out: a zero would cost a log loss without bound."""
SUM_TOLERANCE = 1.0e-9


@dataclass(frozen=True)
class SubmissionForm:
    """The columns and ids of the submission, and the prior that its file holds first."""

    columns: tuple[str, ...]
    """The header, in the sample's order."""
    ids: tuple[str, ...]
    prior: np.ndarray
    """(ids, classes) probabilities, classes in the competition's order."""


def read_form(path: Path, competition: Competition) -> SubmissionForm:
    """Reads the form of the submission in `path`."""
    with _opened(path) as stream:
        header, *lines = csv.reader(stream)
    places = [header.index(name) for name in competition.outputs]
    ids = tuple(line[header.index(competition.id)] for line in lines)
    prior = np.array([[float(line[place]) for place in places] for line in lines]).reshape(-1, len(places))
    return SubmissionForm(tuple(header), ids, prior)


def to_distribution(probabilities: np.ndarray) -> np.ndarray:
    """Returns (rows, classes) probabilities clipped from below, whose rows sum to 1."""
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1.0)
    return clipped / clipped.sum(axis=1, keepdims=True)


def write_submission(
    path: Path, form: SubmissionForm, ids: list[str], probabilities: np.ndarray, competition: Competition
) -> None:
    """Replaces `path` at once: every id of the form, with its (classes,) row of `probabilities`.

    An id without a row, or whose row is not finite, keeps the form's prior. Numbers are written with all their digits.
    """
    row_of = {id_: row for row, id_ in enumerate(ids)}
    chosen = form.prior.copy()
    for place, id_ in enumerate(form.ids):
        row = row_of.get(id_)
        if row is not None and np.isfinite(probabilities[row]).all():
            chosen[place] = probabilities[row]
    columns: dict[str, list[str] | tuple[str, ...]] = {competition.id: form.ids}
    for place, name in enumerate(competition.outputs):
        columns[name] = [repr(value) for value in to_distribution(chosen)[:, place].tolist()]
    with atomic_file(path) as partial, _opened(partial, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(form.columns)
        writer.writerows(zip(*(columns[name] for name in form.columns), strict=True))


def validate_submission(path: Path, sample: Path, competition: Competition) -> int:
    """Returns the number of rows of the submission `path`, which has the sample's columns, ids and order.

    Raises: PodiumError naming the line where it has not, or where the numbers are no probabilities that sum to 1.
    """
    found, expected = _table(path), _table(sample)
    if found[0] != expected[0]:
        raise PodiumError(f"{path}: expected the columns {expected[0]}, found {found[0]}")
    if len(found) != len(expected):
        raise PodiumError(f"{path}: expected {len(expected) - 1} rows, found {len(found) - 1}")
    place = expected[0].index(competition.id)
    for number, (line, wanted) in enumerate(zip(found[1:], expected[1:], strict=True), start=2):
        if len(line) != len(wanted) or line[place] != wanted[place]:
            raise PodiumError(f"{path}: line {number}: expected id {wanted[place]}, found {','.join(line)[:80]}")
        _check_numbers([cell for column, cell in enumerate(line) if column != place], f"{path}: line {number}")
    return len(found) - 1


def _check_numbers(cells: list[str], where: str) -> None:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = [math.nan]
    if not all(0.0 <= number <= 1.0 for number in numbers):
        raise PodiumError(f"{where}: expected probabilities, found {','.join(cells)[:80]}")
    if abs(math.fsum(numbers) - 1.0) > SUM_TOLERANCE:
        raise PodiumError(f"{where}: expected a sum of 1, found {math.fsum(numbers)!r}")


def _table(path: Path) -> list[list[str]]:
    try:
        with _opened(path) as stream:
            lines = list(csv.reader(stream))
    except OSError as error:
        raise PodiumError(f"{path}: expected a CSV file, found: {error.strerror}") from None
    if not lines:
        raise PodiumError(f"{path}: expected a header, found an empty file")
    return lines


def _opened(path: Path, mode: str = "r") -> IO[str]:
    """Opens a CSV file as text; bytes that are not UTF-8 survive a round trip."""
    csv.field_size_limit(sys.maxsize)
    return path.open(mode, encoding="utf-8-sig" if mode == "r" else "utf-8", errors="surrogateescape", newline="")
