"""The rows of a competition's tables as its YAML file sees them, in exact plain Python: header, and cells as text.

Beside what a file holds these are the columns that `lookup` brings from other files and `parts` makes of lists, and
numbers where `train_id` asks for them; without the rows that are `left_out`, and with columns `renamed`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from pipeline.competitions.task import NUMBERED, SIDES, WINNER, Competition, Lookup
from pipeline.errors import PodiumError, nearest
from pipeline.ingest.parts import taken_apart
from pipeline.ingest.tables import BATCH, OTHERS, check_encoding, quoted, table

PACKED = (".zip", ".gz", ".7z", ".bz2", ".xz", ".zst")
ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "a 7z",
    b"\x1f\x8b": "a gzip",
    b"Rar!": "a rar",
    b"BZh": "a bzip2",
    b"\xfd7zXZ": "an xz",
    b"\x28\xb5\x2f\xfd": "a zstd",
}
"""How archives that are no zip files begin."""
OTHER_FORMS = {magic: f"{kind} archive: unpack it" for magic, kind in ARCHIVES.items()} | {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"PAR1": "a parquet file: let its name end in .parquet",
}
"""How files begin that are no table of the form that their name says."""


def read_header(path: Path, competition: Competition, strict: bool = True) -> list[str]:
    """Returns the column names of a table.

    Raises: PodiumError where there is no file or no header and, if `strict`, for what is not UTF-8, broken quoting or a
    repeated name.
    """
    separator = competition.separator
    if len(separator.encode()) != 1 or separator in '\r\n"\\':
        raise PodiumError(f"{path}: separator: expected one ASCII character, found {quoted(separator)}")
    if not path.is_file():
        raise PodiumError(f"{path}: " + ("expected a file" if path.exists() else f"no such file{_elsewhere(path)}"))
    if not path.stat().st_size:
        raise PodiumError(f"{path}: expected a line of column names, found an empty file")
    if path.suffix.lower() in OTHERS and path.suffix not in OTHERS:
        raise PodiumError(f"{path}: expected an ending in small letters, such as {path.suffix.lower()}")
    if path.suffix != ".parquet":
        with path.open("rb") as stream:
            start = stream.read(8)
        for magic, form in OTHER_FORMS.items():
            if start.startswith(magic):
                raise PodiumError(f"{path}: expected a table of text, found {form}")
    try:
        header = next(_rows(path, competition, strict), [])
    except UnicodeDecodeError:
        check_encoding(path, competition.encoding)
        raise
    except csv.Error as error:
        raise PodiumError(f"{path}: column names: expected quotes as in RFC 4180, found: {error}") from None
    if not header:
        raise PodiumError(f"{path}: expected a line of column names, found an empty line")
    if strict and any("\0" in name for name in header):
        raise PodiumError(f"{path}: column names: expected text, found NUL: is it UTF-16?")
    for place, name in enumerate(header):
        if strict and name in header[:place]:
            raise PodiumError(f"{path}: column {quoted(name)} stands twice in the header")
    return header


def _elsewhere(path: Path) -> str:
    """Returns a hint where a table stands packed beside its place, or in a folder below."""
    packed = next((file for file in (Path(f"{path}{end}") for end in PACKED) if file.is_file()), None)
    if packed:
        return f"; unpack {packed.name} beside it"
    for name in (path.name, *(f"{path.name}{end}" for end in PACKED)):
        if below := sorted(path.parent.rglob(name)):
            place = below[0].relative_to(path.parent).as_posix()
            return f"; {place} is below it: move it up, or name it in the competition's YAML file"
    return ""


def plain_rows(path: Path, competition: Competition, strict: bool, most: int | None = None) -> Iterator[list[str]]:
    """Yields the cells of every data row, in the order of the header; blank lines are passed over.

    Where `strict` is False, undecodable bytes become U+FFFD, short rows are filled up and long ones cut. Of a CSV file
    no more is read than the first `most` rows need.

    Raises: PodiumError, if `strict`, for what is not in the file's encoding, for broken quoting, for a row of the wrong
    length, and for a key that a `lookup` does not have.
    """
    if strict and most is None and path.suffix != ".parquet":
        check_encoding(path, competition.encoding)
    try:
        yield from islice(_rows(path, competition, strict), 1, None if most is None else most + 1)
    except UnicodeDecodeError:
        check_encoding(path, competition.encoding)
        raise


def scan_by_hand(
    path: Path, header: list[str], columns: list[str], competition: Competition, strict: bool
) -> pl.LazyFrame:
    """Returns the named columns as String, in batches, through `plain_rows`; an empty cell is ""."""
    places, schema = [header.index(column) for column in columns], dict.fromkeys(columns, pl.String)

    def batches(*_: object) -> Iterator[pl.DataFrame]:
        rows = plain_rows(path, competition, strict)
        while waiting := [[cells[place] for place in places] for cells in islice(rows, BATCH)]:
            yield pl.DataFrame(waiting, schema=schema, orient="row")
        yield pl.DataFrame(schema=schema)

    return register_io_source(batches, schema=schema)


def as_in_the_file(path: Path, competition: Competition) -> bool:
    """Returns whether the competition sees nothing in a table but what a reader of UTF-8 CSV sees."""
    part, plain = competition.part(path), competition.encoding == "utf-8" and competition.quotes == "doubled"
    added = {
        "train": (
            *(competition.train_id == NUMBERED, competition.lookup, competition.parts, competition.left_out),
            competition.label.winner,
        ),
        "test": (competition.looked_up("test"), competition.parts, competition.renamed),
    }
    return plain and not any(added.get(part or "", ()))


def _rows(path: Path, competition: Competition, strict: bool) -> Iterator[list[str]]:
    """Yields the header, then the cells of every row, as the YAML file has them: see the module."""
    rows, part = table(path, competition, strict), competition.part(path)
    if part not in ("train", "test"):
        return rows
    if part == "train" and competition.train_id == NUMBERED:
        rows = _numbered(rows)
    if part == "test" and competition.renamed:
        rows = _renamed(rows, competition.renamed)
    for lookup in competition.looked_up(part):
        rows = _looked_up(rows, path, lookup, competition, strict)
    if any(competition.parts.values()):
        rows = taken_apart(rows, path, competition, strict)
    if part == "train" and competition.left_out:
        rows = _without(rows, path, competition.left_out)
    if part == "train" and competition.label.winner:
        rows = _dealt(rows, path, competition)
    return rows


def _dealt(rows: Iterator[list[str]], path: Path, competition: Competition) -> Iterator[list[str]]:
    """Yields rows of which all have the same winner, with their sides changed in every other one, and the winner's
    class behind: else there would be nothing to tell."""
    yield [*(header := next(rows, [])), WINNER]
    sides = [competition.texts[side] for side in SIDES]
    for side in sides:
        if side not in header:
            raise PodiumError(f"{path}: missing column {quoted(side)}{nearest(side, header)}")
    a, b = map(header.index, sides)
    first = SIDES.index(competition.label.winner or "")
    for number, cells in enumerate(rows):
        if number % 2:
            cells[a], cells[b] = cells[b], cells[a]
        yield [*cells, competition.label_values[(first + number) % 2]]


def _renamed(rows: Iterator[list[str]], names: dict[str, str]) -> Iterator[list[str]]:
    yield [names.get(name, name) for name in next(rows, [])]
    yield from rows


def _without(rows: Iterator[list[str]], path: Path, left_out: dict[str, tuple[str, ...]]) -> Iterator[list[str]]:
    """Yields header and rows but for those that are left out."""
    yield (header := next(rows, []))
    for name in left_out:
        if name not in header:
            raise PodiumError(f"{path}: missing column {quoted(name)} of left_out{nearest(name, header)}")
    places = [(header.index(name), cells) for name, cells in left_out.items()]
    yield from (row for row in rows if all(row[place] not in cells for place, cells in places))


def _numbered(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    yield [NUMBERED, *next(rows, [])]
    for number, cells in enumerate(rows):
        yield [str(number), *cells]


def _looked_up(
    rows: Iterator[list[str]], path: Path, lookup: Lookup, competition: Competition, strict: bool
) -> Iterator[list[str]]:
    """Yields header and rows with the columns of a lookup behind; one that the rows have already is passed over."""
    header, part = next(rows, []), competition.part(path)
    assert part in ("train", "test")
    if lookup.key not in header:
        raise PodiumError(f"{path}: missing column {quoted(lookup.key)} of lookup.key{nearest(lookup.key, header)}")
    root = path.parents[len(Path(getattr(competition, part)).parts) - 1]
    place = root / lookup.place(part)
    if "{}" in place.name:
        columns, found = _texts_below(place, lookup.column, competition, strict)
    else:
        columns, found = _table_by_key(place, lookup.key, competition, strict)
    new = [at for at, name in enumerate(columns) if name not in header]
    yield [*header, *(columns[at] for at in new)]
    at = header.index(lookup.key)
    for number, cells in enumerate(rows, start=1):
        told = found(cells[at])
        if told is None and strict:
            raise PodiumError(
                f"{path}: row {number}: column {quoted(lookup.key)}: {place} has nothing for {quoted(cells[at])}"
            )
        yield [*cells, *(told[each] if told else "" for each in new)]


Found = Callable[[str], list[str] | None]


def _table_by_key(path: Path, key: str, competition: Competition, strict: bool) -> tuple[list[str], Found]:
    """Returns the columns of a table, and what finds the row of a key."""
    plain = competition.as_filed()
    header = read_header(path, plain, strict)
    if key not in header:
        raise PodiumError(f"{path}: missing column {quoted(key)} of lookup.key{nearest(key, header)}")
    at, rows = header.index(key), dict[str, list[str]]()
    for cells in plain_rows(path, plain, strict):
        if strict and cells[at] in rows:
            raise PodiumError(
                f"{path}: column {quoted(key)}: expected one row per key, {quoted(cells[at])} has several"
            )
        rows.setdefault(cells[at], cells)
    return header, rows.get


def _texts_below(place: Path, column: str, competition: Competition, strict: bool) -> tuple[list[str], Found]:
    """Returns the name of the column of text files, and what reads the file of a key."""
    if not place.parent.is_dir() and strict:
        raise PodiumError(f"{place.parent}: no such folder")

    def found(key: str) -> list[str] | None:
        try:
            file = place.with_name(place.name.replace("{}", key))
            return [file.read_text(encoding=competition.encoding, errors="strict" if strict else "replace")]
        except UnicodeDecodeError:
            check_encoding(file, competition.encoding)
            raise
        except (OSError, ValueError):  # no such file, or a key that can name none
            return None

    return [column], found
