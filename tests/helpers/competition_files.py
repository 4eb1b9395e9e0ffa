"""Small competitions as CSV files, right as they are; a test breaks one thing."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from random import Random

import polars as pl
import pytest

from pipeline.competitions.registry import load_competition
from pipeline.competitions.submission import LABEL, TOP, submission_columns
from pipeline.competitions.task import AUTO, NUMBERED, Competition, Label, Lookup
from pipeline.errors import PodiumError
from pipeline.ingest.prepare import prepare

LMSYS = load_competition("lmsys")
SINGLE = Competition(
    name="authors",
    task="text",
    metric="log_loss",
    id="id",
    texts={"text": "text"},
    classes=("EAP", "HPL", "MWS"),
    label=Label(column="author"),
)
FIELDS = ["prompt", "a", "b"]
WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]
TRAIN_HEADER = ["id", "model_a", "model_b", "prompt", "response_a", "response_b", *WINNERS]
TEST_HEADER = ["id", "prompt", "response_a", "response_b"]
WORDS = (
    "the river an old bridge my neighbour keeps slowly asks why never before breakfast because it costs less in spring"
)


def write(path, rows, **options):
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, **options).writerows(rows)


def train_row(identity, cell='["x"]', label=(1, 0, 0)):
    return [identity, "m", "n", cell, cell, cell, *label]


def preference(folder, train=None, test=None, sample=None):
    """A small, right competition; `train`, `test` and `sample` replace its data rows."""
    labels = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    train = [train_row(f"r{i}", label=labels[i % 3]) for i in range(6)] if train is None else train
    test = [[f"t{i}", *['["y"]'] * 3] for i in range(2)] if test is None else test
    sample = [[row[0], 0.3, 0.3, 0.4] for row in test] if sample is None else sample
    folder.mkdir(exist_ok=True)
    write(folder / "train.csv", [TRAIN_HEADER, *train])
    write(folder / "test.csv", [TEST_HEADER, *test])
    write(folder / "sample_submission.csv", [["id", *WINNERS], *sample])
    return folder


def single(folder, train=None, test=None):
    train = [["a", "one", "EAP"], ["b", "two", "HPL"], ["c", "three", "MWS"]] if train is None else train
    test = [["d", "four"]] if test is None else test
    folder.mkdir(exist_ok=True)
    write(folder / "train.csv", [["id", "text", "author"], *train])
    write(folder / "test.csv", [["id", "text"], *test])
    write(folder / "sample_submission.csv", [["id", "EAP", "HPL", "MWS"], *[[row[0], 0.3, 0.3, 0.4] for row in test]])
    return folder


def prepared(source, competition=LMSYS):
    target = source / "out" / "competition"
    prepare(source, competition, target)
    facts = json.loads((target / "competition.json").read_text(encoding="utf-8"))
    return pl.read_parquet(target / "train.parquet"), pl.read_parquet(target / "test.parquet"), facts


def fault(source, competition=LMSYS):
    """The one line that prepare ends with; it must leave nothing behind."""
    with pytest.raises(PodiumError) as caught:
        prepare(source, competition, source / "out" / "competition")
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert not (source / "out").exists() or not os.listdir(source / "out")
    return line


def write_table(path: Path, columns: dict[str, list[str]], separator: str = ",") -> None:
    """Writes columns of text as CSV, JSON, JSON lines or parquet, as the file's name says."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pl.DataFrame(columns).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        write(path, [list(columns), *(list(row.values()) for row in rows)], delimiter=separator)


def twin(folder: Path, competition: Competition, rows: int = 48, seed: int = 0) -> Path:
    """Writes made-up files with the columns that the competition's YAML states, and returns their folder."""
    draw = Random(seed)
    folder.mkdir(exist_ok=True)
    test_rows = rows // 4
    words = WORDS.split()

    def text(place: int) -> str:
        sentence = " ".join(draw.choices(words, k=draw.randint(3, 30))) + f" {place // 2}."
        return json.dumps([sentence]) if competition.turns == "json" else sentence

    def texts(count: int) -> dict[str, list[str]]:
        found = {column: [text(place) for place in range(count)] for column in competition.texts.values()}
        if competition.task == "pair":  # a text that two rows have
            found[competition.texts["b"]][1] = found[competition.texts["a"]][0]
        return found

    def others(names: tuple[str, ...], count: int) -> dict[str, list[str]]:
        return {name: [f"{name} {draw.randint(0, 9)}" for _ in range(count)] for name in names}

    numbered = {"": [str(place) for place in range(rows)]} if competition.separator == "\t" else {}
    ids = [f"{draw.randrange(16**8):08x}" for _ in range(rows + test_rows)]
    ignored = tuple(name for name in competition.ignored if name not in ("", "*"))
    train = numbered | {competition.id: ids[:rows]} | texts(rows)
    test = {name: cells[:test_rows] for name, cells in numbered.items()}
    test |= {competition.id: ids[rows:]} | texts(test_rows) | others(ignored, test_rows)
    train |= others(tuple(name for name in (*ignored, *competition.group) if name not in train), rows)
    train |= _label_cells(competition, rows, draw)
    for lookup in competition.lookup:
        _beside(folder, competition, lookup, "train", train)
        _beside(folder, competition, lookup, "test", test)
    if competition.time:
        train[competition.time] = [f"2024-{1 + place % 12:02d}-11" for place in range(rows)]
    if competition.train_id not in (None, competition.id):
        train = {competition.train_id if name == competition.id else name: cells for name, cells in train.items()}
        train.pop(NUMBERED, None)
    write_table(folder / competition.train, train, competition.separator)
    write_table(folder / competition.test, test, competition.separator)
    values = ["some:class"] if competition.classes == AUTO else list(competition.label_values)
    cells = {
        column: (competition.join.join(values[: int(what[len(TOP) :])]) if what.startswith(TOP) else "0.5")
        for column, what in submission_columns(competition).items()
    }
    answers = {
        column: [values[0] if what == LABEL and values else cells[column]] * test_rows
        for column, what in submission_columns(competition).items()
    }
    write_table(folder / competition.sample_submission, {competition.id: ids[rows:]} | answers)
    return folder


def _beside(folder: Path, competition: Competition, lookup: Lookup, part: str, rows: dict[str, list[str]]) -> None:
    """Writes what the YAML finds in other files, and takes it out of the rows: of a table all texts but the first."""
    count = len(rows[competition.id])
    keys = [f"{part}{place % 8}" for place in range(count)]
    names = [lookup.column] if lookup.column else list(competition.texts.values())[1:]
    columns = {lookup.key: list(dict.fromkeys(keys))} | {name: rows.pop(name)[: len(set(keys))] for name in names}
    rows[lookup.key] = keys
    place = folder / lookup.place(part)
    if not lookup.column:
        write_table(place, columns, competition.separator)
        return
    place.parent.mkdir(exist_ok=True)
    for key, text in zip(*columns.values(), strict=True):
        place.with_name(place.name.replace("{}", key)).write_text(text, encoding=competition.encoding)


def _label_cells(competition: Competition, rows: int, draw: Random) -> dict[str, list[str]]:
    label, outcome = competition.label, competition.outcome
    if label.one_hot:
        drawn = [draw.randrange(len(label.one_hot)) for _ in range(rows)]
        return {name: [str(int(each == place)) for each in drawn] for place, name in enumerate(label.one_hot)}
    if label.joined:
        return {name: [draw.choice((f"{name}_1", f"{name}_2", "")) for _ in range(rows)] for name in label.joined}
    if label.column and outcome == "ordered":
        return {label.column: [str(draw.choice(competition.scores)) for _ in range(rows)]}
    if label.column:
        values = ["one", "two", "three"] if competition.classes == AUTO else competition.label_values
        return {label.column: [draw.choice(values) for _ in range(rows)]}
    cells = (lambda: f"{draw.uniform(0, 4):.2f}") if outcome == "numbers" else (lambda: draw.choice("01"))
    return {name: [cells() for _ in range(rows)] for name in label.columns or ()}
