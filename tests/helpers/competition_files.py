"""Small competitions as CSV files, right as they are; a test breaks one thing."""

from __future__ import annotations

import csv
import json
import os

import polars as pl
import pytest

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition, Label
from pipeline.data.ingest import prepare
from pipeline.errors import PodiumError

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
