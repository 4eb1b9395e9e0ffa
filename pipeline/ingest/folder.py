"""What a folder with a competition's files holds: train, test and sample, how they are written, what lies beside.

pipeline/ingest/draft.py makes a YAML file of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from os.path import isfile  # of a name that is too long pathlib raises
from pathlib import Path
from typing import Literal

from pipeline.competitions.task import Competition, Label, Lookup
from pipeline.errors import PodiumError
from pipeline.ingest.cells import PACKED, plain_rows, read_header
from pipeline.ingest.tables import OTHERS

TABLES = (".csv", ".tsv", *OTHERS)
SAMPLES = (("sample", "submission"), ("submission",), ("submit",), ("benchmark",), ("sample",))
TESTS = (("test",), ("valid",), ("leaderboard",))
"""Words in the names of files, the most telling first."""
LETTERS = "ABCDEFGHIJ"
SEPARATORS = ",\t;|"
SAMPLED = 20_000
"""Rows that a guess is made from."""
TRIED = 20
"""Keys for which a text file is looked for."""


@dataclass(frozen=True)
class Sheet:
    """The columns of a file, and what stands in its first rows."""

    path: Path
    columns: dict[str, list[str]]
    rows: int

    def filled(self, column: str) -> list[str]:
        """Returns the cells of a column that are not empty."""
        return [cell for cell in self.columns[column] if cell]


@dataclass(frozen=True)
class DataFolder:
    """The three tables of a competition, and how they are written."""

    path: Path
    form: Competition
    """Of which separator, quotes, encoding, lookup and the names of the files are meant."""
    train: Sheet
    test: Sheet
    sample: Sheet


def read_folder(path: Path) -> DataFolder:
    """Returns what the folder holds, by the names, headers and first rows of its files.

    Raises: PodiumError where one is missing or cannot be read.
    """
    sample = _read(_named(path, SAMPLES, [])[0])
    asked = set(sample.columns)
    test = max(_named(path, TESTS, [sample.path]), key=lambda file: len(asked & _header(file)))
    shown = _header(test)  # of two files with train in their name one may hold the texts, the other labels alone
    candidates = _named(path, (("train",),), [sample.path, test])
    train = max(candidates, key=lambda file: (len(shown & _header(file)), len(asked & _header(file))))
    form = replace(
        _form(train),
        train=train.relative_to(path).as_posix(),
        test=test.relative_to(path).as_posix(),
        sample_submission=sample.path.relative_to(path).as_posix(),
        encoding="utf-8" if _is_utf8(train) and _is_utf8(test) else "latin-1",
    )
    form = replace(form, quotes=_quotes(train, test, form))
    form = replace(form, lookup=_lookups(path, form, _table(train, form), _table(test, form), sample))
    found = DataFolder(path, form, _table(train, form), _table(test, form), sample)
    return _with_options(found)


def _header(file: Path) -> set[str]:
    return set(read_header(file, _form(file), strict=False))


def _named(folder: Path, names: Sequence[Sequence[str]], but: Sequence[Path]) -> list[Path]:
    """Returns the tables of `folder`, or else one level below, whose names have all the words of the first of `names`
    that any has, those with the shortest name first; `but` are none of them.

    Raises: PodiumError where there is none.
    """

    def fits(file: Path, words: Sequence[str]) -> bool:
        return all(word in file.name.lower() for word in words) and file not in but

    def sized(pattern: str) -> list[Path]:
        return sorted(filter(Path.is_file, folder.glob(pattern)), key=lambda file: (len(file.name), file.as_posix()))

    files = sized("*")
    for among in (files, sized("*/*")):
        for words in names:
            if tables := [file for file in among if file.suffix.lower() in TABLES and fits(file, words)]:
                return tables
    words = names[0]
    packed = next((file for file in files if file.suffix in PACKED and fits(file, words)), None)
    hint = (
        f"; unpack {packed.name}" if packed else f", found {', '.join(file.name for file in files[:10]) or 'nothing'}"
    )
    names = f"expected a table with {' and '.join(words)} in its name ({', '.join(TABLES)}){hint}"
    raise PodiumError(f"{folder}: {names}; for files with other names write the YAML file by hand")


def _form(path: Path) -> Competition:
    """Returns how a file is written, but for its quotes: its separator parts its header into most names."""
    separator = ","
    if path.suffix not in OTHERS:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            line = stream.readline()
        separator = max(SEPARATORS, key=line.count)
    return Competition("draft", "text", "log_loss", "id", {}, Label(), separator=separator, turns="json")


def _is_utf8(path: Path) -> bool:
    if path.suffix == ".parquet":
        return True
    with path.open("rb") as stream:
        try:
            for line in stream:
                line.decode()
        except UnicodeDecodeError:
            return False
    return True


def _quotes(train: Path, test: Path, form: Competition) -> Literal["doubled", "backslash", "none"]:
    """Returns the first way to write quotes in which both files have as many cells in each row as names."""
    ways: tuple[Literal["doubled", "backslash", "none"], ...] = ("doubled", "backslash", "none")
    for way in ways:
        try:
            for path in (train, test):
                for _ in plain_rows(path, replace(form, quotes=way), strict=True, most=SAMPLED):
                    pass
        except PodiumError:
            continue
        return way
    return "doubled"  # whatever is wrong there, `prepare` says it


def _read(path: Path) -> Sheet:
    return _table(path, _form(path))


def _table(path: Path, form: Competition) -> Sheet:
    """Returns the columns of a file and its first rows; what a lookup lacks is empty."""
    header = read_header(path, form)
    rows = list(islice(plain_rows(path, form, strict=False), SAMPLED))
    return Sheet(path, {name: [row[place] for row in rows] for place, name in enumerate(header)}, len(rows))


def _lookups(folder: Path, form: Competition, train: Sheet, test: Sheet, sample: Sheet) -> tuple[Lookup, ...]:
    """Returns the other files that have a part of each row: tables with one row per key, and folders of text files."""
    common = [name for name in train.columns if name in test.columns and name]
    found = [lookup for key in common if (lookup := _texts_below(folder, key, train, test))]
    tables = []
    for file in sorted(folder.iterdir()):
        if file.suffix in TABLES and file not in (train.path, test.path, sample.path):
            with suppress(PodiumError):  # one that cannot be read is of no use
                tables += [_table(file, form)]
    for key in common:
        of = {
            part: next((each for each in tables if _has(each, key, rows)), None)
            for part, rows in (("train", train), ("test", test))
        }
        if (first := of["train"]) and (second := of["test"]) and set(first.columns) - set(train.columns):
            same = first.path == second.path
            found.append(Lookup(key, first.path.name, "" if same else second.path.name))
            tables = [each for each in tables if each not in (first, second)]
    asked = [name for name in sample.columns if name not in (*train.columns, *test.columns)]
    labels = next((each for each in tables if any(name in each.columns for name in asked)), None)
    keys = [name for name in train.columns if labels and _has(labels, name, train)]
    return (*found, Lookup(keys[0], labels.path.name, only="train")) if labels and keys else tuple(found)


def _with_options(folder: DataFolder) -> DataFolder:
    """Returns the folder with a column for each option of a question, where all stand in one cell as a list."""
    train, test = folder.train, folder.test
    if set(LETTERS) & train.columns.keys():
        return folder
    labels = [set(train.filled(name)) for name in train.columns if name not in test.columns]
    common = [name for name in train.columns if name in test.columns and train.rows and test.rows]
    for name, key in [(each, key) for each in common for key in _lists(train.columns[each][0])]:
        lists = [[_lists(cell).get(key, []) for cell in table.columns[name]] for table in (train, test)]
        sizes = {len(each) for rows in lists for each in rows}
        letters = LETTERS[: sizes.pop()] if len(sizes) == 1 else ""
        if len(letters) > 1 and any(are_places(found, len(letters)) for found in labels):
            form = replace(folder.form, parts={f"{name}{key}": tuple(letters)})
            parted = []
            for table, rows in zip((train, test), lists, strict=True):
                columns = {other: cells for other, cells in table.columns.items() if other != name}
                columns |= {letter: [row[place] for row in rows] for place, letter in enumerate(letters)}
                parted.append(replace(table, columns=columns))
            return replace(folder, form=form, train=parted[0], test=parted[1])
    return folder


def are_places(values: set[str], options: int) -> bool:
    """Whether values of a label name so many options by their numbers, from 0 or 1, or by letters."""
    numbers = [{str(first + place) for place in range(options)} for first in (0, 1)]
    return any(set() < values <= each for each in (*numbers, set(LETTERS[:options])))


def _lists(cell: str) -> dict[str, list[str]]:
    """Returns the lists of texts in a cell of JSON: "" -> the list that it is, `.key` -> those that it holds.

    Names of the options, such as A and B, are no texts.
    """
    try:
        value = json.loads(cell) if cell[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return {}
    found = {f".{key}": each for key, each in value.items()} if isinstance(value, dict) else {"": value}
    return {
        key: each
        for key, each in found.items()
        if isinstance(each, list) and all(isinstance(one, str) for one in each) and any(len(one) > 1 for one in each)
    }


def _has(table: Sheet, key: str, rows: Sheet) -> bool:
    """Whether a table has one row for each key of `rows`; of a larger one, the first keys are looked at."""
    keys = table.columns.get(key, [])
    if not keys or len(set(keys)) < len(keys):
        return False
    wanted = set(rows.columns[key])
    return wanted <= set(keys) if len(keys) < SAMPLED else bool(wanted & set(keys))


def _texts_below(folder: Path, key: str, train: Sheet, test: Sheet) -> Lookup | None:
    """Returns the folders that have a text file for each value of a column, one for train and one for test."""
    places = {}
    for part, rows in (("train", train), ("test", test)):
        keys = list(dict.fromkeys(rows.columns[key]))[:TRIED]
        for below in sorted(file for file in folder.iterdir() if file.is_dir() and keys):
            if all(each and "/" not in each and isfile(below / f"{each}.txt") for each in keys):
                places[part] = f"{below.name}/{{}}.txt"
    if len(places) < 2:
        return None
    same = places["train"] == places["test"]
    column = re.sub(r"(?i)_?id$", "", key) or "text"  # the text of an essay_id is the essay
    column = f"{column}_text" if column in train.columns else column
    return Lookup(key, places["train"], "" if same else places["test"], column)
