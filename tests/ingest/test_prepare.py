"""prepare and read_test: what comes back is what was written, to the byte."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest
import yaml
from competition_files import (
    FIELDS,
    LMSYS,
    SINGLE,
    TEST_HEADER,
    TRAIN_HEADER,
    WINNERS,
    preference,
    prepared,
    single,
    train_row,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ROOT, SHARED

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Label, competition_from_json
from pipeline.ingest.prepare import prepare, read_test

GIVEN = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['"', '""', ",", "\n", "\r\n", "\r", "\t", "\\", "\\ud83d", "[]", "null", "\x00", "\u2028", "😀", "\ufeff", " ", ""]
)
turns = st.lists(st.none() | texts, max_size=4)


@GIVEN
@given(st.lists(st.lists(turns, min_size=3, max_size=3), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_turns_come_back_exactly(tmp_path, cells, ascii_only, crlf):
    cells = [[turns[: min(map(len, row))] for turns in row] for row in cells]
    encoded = [[json.dumps(turns, ensure_ascii=ascii_only) for turns in row] for row in cells]
    train = [[f"r{i}", "m", "n", *row, 0, 1, 0] for i, row in enumerate(encoded)]
    source = preference(tmp_path, train, [[f"t{i}", *row] for i, row in enumerate(encoded)])
    write(source / "train.csv", [TRAIN_HEADER, *train], lineterminator="\r\n" if crlf else "\n")
    train, test, _ = prepared(source)
    assert train.select(FIELDS).rows() == test.select(FIELDS).rows() == [tuple(row) for row in cells]
    assert train.schema == {"id": pl.String, "label": pl.Int16, **dict.fromkeys(FIELDS, pl.List(pl.String))}
    assert test.columns == ["id", *FIELDS]


@GIVEN
@given(
    st.lists(texts, min_size=1, max_size=5),
    st.sampled_from([",", "\t", ";"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_plain_texts_come_back_exactly(tmp_path, cells, separator, quoting):
    source = single(tmp_path, test=[[f"t{i}", cell] for i, cell in enumerate(cells)])
    for file in source.glob("*.csv"):
        rows = list(csv.reader(file.open(encoding="utf-8", newline="")))
        write(file, rows, delimiter=separator, quoting=quoting)
    _, test, _ = prepared(source, replace(SINGLE, separator=separator))
    assert test["text"].to_list() == [[cell] for cell in cells]


@GIVEN
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, unique=True, max_size=8))
def test_ids_keep_their_text(tmp_path, ids):
    ids = [identity for identity in ids if identity not in "abc"] or ["007"]
    _, test, _ = prepared(single(tmp_path, test=[[identity, "x"] for identity in ids]), SINGLE)
    assert test["id"].to_list() == ids


def turns_as_python_reads_them(cell):
    try:
        value = json.loads(cell, strict=False)
    except (ValueError, RecursionError):
        return [cell]
    if not isinstance(value, list) or not all(turn is None or isinstance(turn, str) for turn in value):
        return [cell]
    return [turn and turn.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for turn in value]


pieces = [
    '"',
    "[",
    "]",
    ",",
    "null",
    "1",
    "{}",
    "\\",
    '\\"',
    "\\u",
    "\\ud83d",
    "\\uDE00",
    "\\u0000",
    "é",
    "\x7f",
    "\n",
    " ",
]
lists = st.lists(st.sampled_from(pieces), max_size=8).map("".join)
cells = texts | lists | lists.map(lambda inner: f'["{inner}"]') | lists.map(lambda inner: f'["{inner}", null]')


@settings(GIVEN, max_examples=100)
@given(st.lists(cells | st.just("[" * 5_000), min_size=1, max_size=20))
def test_the_kernel_reads_any_cell(tmp_path, cells):
    write(tmp_path / "test.csv", [TEST_HEADER, *[[f"t{i}", cell, '["b"]', cell] for i, cell in enumerate(cells)]])
    rows = read_test(tmp_path / "test.csv", LMSYS, strict=False)
    expected = [turns_as_python_reads_them(cell) for cell in cells]
    assert rows.rows() == [(f"t{i}", turns, ["b"], turns) for i, turns in enumerate(expected)]


def test_order_labels_rows_and_competition(tmp_path):
    source = preference(tmp_path, [train_row(i, label=label) for i, label in [("z", (0, 0, 1)), ("007", (1, 0, 0))]])
    train, test, facts = prepared(source)
    assert train.select("id", "label").rows() == [("z", 2), ("007", 0)]
    assert facts["rows"] == {"train": 2, "test": 2}
    assert competition_from_json(facts["competition"]) == LMSYS
    assert read_test(source / "test.csv", LMSYS, strict=True).equals(test)


def test_labels_may_be_written_as_floats_and_as_values(tmp_path):
    source = preference(tmp_path, [train_row("a", label=("1.0", "0.0", "0")), train_row("b", label=("0", "0", "1"))])
    assert prepared(source)[0]["label"].to_list() == [0, 2]
    valued = replace(SINGLE, label=Label(column="author", values=("x", "y", "z")))
    source = single(tmp_path / "single", [["a", "t", "z"], ["b", "t", "x"], ["c", "t", "y"]])
    assert prepared(source, valued)[0]["label"].to_list() == [2, 0, 1]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (r'["\ud83d"]', ["\ufffd"]),
        (r'["a\uDE00b", "c"]', ["a\ufffdb", "c"]),
        (r'["\ud83d\ud83d\ude00"]', ["\ufffd😀"]),
        (r'["\ud83d\ude00"]', ["😀"]),
        (r'["\\ud83d"]', [r"\ud83d"]),
        (' [ "a" , null ] ', ["a", None]),
        ('["a",\n"b"]', ["a", "b"]),
        ('["a\nb\tc"]', ["a\nb\tc"]),
        ("[]", []),
    ],
)
def test_json_that_strict_decoders_refuse(tmp_path, cell, expected):
    rows = [train_row("a"), train_row("b", cell), train_row("c")]
    assert prepared(preference(tmp_path, rows))[0]["a"].to_list() == [["x"], expected, ["x"]]


@pytest.mark.parametrize(
    "text",
    [
        " ",
        " \t\n\r\n  ",
        "ab😀é" * 250_000,
        "x\n" * 500_000,
        '"' * 1_000_000,
        "한국어 عربى ไทย ᚠᛇᚻ 𝔘𝔫𝔦",
        "y" * 5_000_000,
    ],
    ids=["space", "white space", "1M characters", "1 MB of lines", "1 MB of quotes", "scripts", "5 MB"],
)
def test_texts_of_any_kind(tmp_path, text):
    train = [train_row("a"), train_row("b", json.dumps([text], ensure_ascii=False)), train_row("c")]
    assert prepared(preference(tmp_path, train))[0]["prompt"].to_list() == [["x"], [text], ["x"]]
    source = single(tmp_path / "single", test=[["p", "before"], ["q", text], ["r", "after"]])
    assert prepared(source, SINGLE)[1]["text"].to_list() == [["before"], [text], ["after"]]


def test_byte_order_mark_crlf_and_blank_lines(tmp_path):
    source = single(tmp_path)
    (source / "test.csv").write_bytes(b'\xef\xbb\xbfid,text\r\n"d","two\r\nlines"\r\n\r\n')
    assert prepared(source, SINGLE)[1].rows() == [("d", ["two\r\nlines"])]


def test_an_empty_text_in_the_last_column_is_a_text(tmp_path):
    source = single(tmp_path, test=[["d", ""], ["e", "x"]])
    (source / "test.csv").write_text('id,text\nd,\n\n"e",""\n', encoding="utf-8")
    assert prepared(source, SINGLE)[1].rows() == [("d", [""]), ("e", [""])]


def test_a_quote_inside_a_bare_cell_is_a_character(tmp_path):
    source = single(tmp_path, test=[["d", "x"], ["e", "x"], ["f", "x"]])
    (source / "test.csv").write_text('id,text\nd,5" pipe\ne,"a ""b"""\nf,6" pipe\n', encoding="utf-8")
    expected = [("d", ['5" pipe']), ("e", ['a "b"']), ("f", ['6" pipe'])]
    assert prepared(source, SINGLE)[1].rows() == expected
    assert read_test(source / "test.csv", SINGLE, strict=False).rows() == expected


def test_a_class_without_rows_is_a_warning(tmp_path, capsys):
    train, _, facts = prepared(preference(tmp_path, [train_row("a"), train_row("b", label=(0, 0, 1))]))
    warnings = capsys.readouterr().err.splitlines()
    assert [line.partition(": no row")[0] for line in warnings] == [f"warning: {tmp_path / 'train.csv'}"]
    assert '"winner_model_b"' in warnings[0]
    assert train["label"].to_list() == [0, 2]
    assert list(facts["competition"]["classes"]) == WINNERS


def test_truth_of_the_training_rows(tmp_path):
    source = preference(tmp_path, [train_row("a"), train_row("b")])
    write(source / "truth.csv", [["id", *WINNERS], ["t0", 1, 0, 0], ["b", 0.2, 0.3, 0.5], ["a", 0.1, 0.25, 0.65]])
    prepared(source)
    truth = pl.read_parquet(source / "out/competition/truth.parquet")
    assert truth.rows() == [("a", 0.1, 0.25, 0.65), ("b", 0.2, 0.3, 0.5)]
    assert truth.schema == {"id": pl.String, **dict.fromkeys(WINNERS, pl.Float64)}
    (source / "truth.csv").unlink()
    prepared(source)
    assert not (source / "out/competition/truth.parquet").exists()


# The same bytes

PREPARE = """
import sys
from pathlib import Path
from pipeline.competitions.registry import load_competition
from pipeline.ingest.prepare import prepare
prepare(Path(sys.argv[1]), load_competition("lmsys"), Path(sys.argv[2]))
"""


def test_bytes_do_not_depend_on_threads(tmp_path):
    odd = {7: r'["\ud83d"]', 5_000: '["a",\n"b"]'}
    cells = [odd.get(i, json.dumps([f"{i} " * (i % 100)])) for i in range(6_000)]
    source = preference(tmp_path, [train_row(f"r{i}", cell) for i, cell in enumerate(cells)])
    for threads in ("1", "3"):
        command = [sys.executable, "-c", PREPARE, str(source), str(tmp_path / threads)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "POLARS_MAX_THREADS": threads}, timeout=120)
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == ["competition.json", "test.parquet", "train.parquet"]
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    assert pl.read_parquet(tmp_path / "1/train.parquet")["id"].to_list() == [f"r{i}" for i in range(6_000)]


def test_the_hash_is_over_what_training_reads(tmp_path):
    def hash_of(competition=LMSYS, **files):
        return prepared(preference(tmp_path, **files), competition)[2]["data"]

    rows = [train_row("a"), train_row("b", label=(0, 1, 0))]
    first = hash_of(train=rows)
    assert hash_of(train=rows, test=[["other", *['["z"]'] * 3]]) == first
    assert hash_of(train=[["a", "other model", "n", *rows[0][3:]], rows[1]]) == first
    changed = [
        hash_of(train=[train_row("A"), rows[1]]),
        hash_of(train=[train_row("a", '["X"]'), rows[1]]),
        hash_of(train=[train_row("a", "[null]"), rows[1]]),
        hash_of(train=[train_row("a", '["null"]'), rows[1]]),
        hash_of(train=[train_row("a", label=(0, 0, 1)), rows[1]]),
        hash_of(train=rows[::-1]),
        hash_of(replace(LMSYS, name="other"), train=rows),
    ]
    assert len({first, *changed}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("name", "train_rows", "test_rows"), [("arena_real", 8_000, 1_500), ("qa_feedback_ties", 2_400, 600)]
)
def test_real_votes(tmp_path, name, train_rows, test_rows):
    source = SHARED / name
    if not source.exists():
        pytest.skip(f"{source} is not here")
    prepare(source, LMSYS, tmp_path / "competition")
    for file, rows in (("train", train_rows), ("test", test_rows)):
        found = pl.read_parquet(tmp_path / "competition" / f"{file}.parquet")
        with (source / f"{file}.csv").open(encoding="utf-8", newline="") as stream:
            expected = list(csv.DictReader(stream))
        assert found.height == len(expected) == rows
        assert found["id"].to_list() == [row["id"] for row in expected]
        for field, column in LMSYS.texts.items():
            assert found[field].to_list() == [json.loads(row[column]) for row in expected]
        if file == "train":
            assert found["label"].to_list() == [[row[name] for name in WINNERS].index("1") for row in expected]


def test_real_sentences_with_tabs_and_a_running_number(tmp_path):
    folder = SHARED / "cs224n"
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with (folder / "ids-sst-dev.csv").open(encoding="utf-8", newline="") as stream:
        dev = [row[:3] for row in csv.reader(stream, **options)]
    write(tmp_path / "unlabelled.csv", dev, delimiter="\t")
    classes = [f"sentiment_{i}" for i in range(5)]
    write(tmp_path / "sample.csv", [["id", *classes], *[[row[1], *[0.2] * 5] for row in dev[1:]]], delimiter="\t")
    shutil.copy(folder / "ids-sst-train.csv", tmp_path / "train.csv")
    description = {
        "name": "sentiment",
        "task": "text",
        "metric": "accuracy",
        "id": "id",
        "texts": {"text": "sentence"},
        "classes": classes,
        "label": {"column": "sentiment", "values": list("01234")},
        "ignored": [""],
        "separator": "\t",
        "test": "unlabelled.csv",
        "sample_submission": "sample.csv",
    }
    (tmp_path / "sentiment.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    train, test, _ = prepared(tmp_path, load_competition(str(tmp_path / "sentiment.yaml")))
    with (folder / "ids-sst-train.csv").open(encoding="utf-8", newline="") as stream:
        labelled = list(csv.reader(stream, **options))[1:]
    assert train.rows() == [(row[1], int(row[3]), [row[2]]) for row in labelled]
    assert test.rows() == [(row[1], [row[2]]) for row in dev[1:]]
