"""prepare and read_test: what comes back is what was written, and every fault is one line."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition, Label, competition_from_json
from pipeline.data.ingest import prepare, read_test
from pipeline.errors import PodiumError

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/data"
LMSYS = load_competition("lmsys")
SINGLE = Competition(
    name="authors",
    task="single",
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
GIVEN = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['"', '""', ",", "\n", "\r\n", "\r", "\t", "\\", "\\ud83d", "[]", "null", "\x00", "\u2028", "😀", "\ufeff", " ", ""]
)
turns = st.lists(st.none() | texts, max_size=4)


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


# What comes back


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
    assert train.schema == {"id": pl.String, "label": pl.Int8, **dict.fromkeys(FIELDS, pl.List(pl.String))}
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
from pipeline.data.ingest import prepare
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


# One line for each fault


def test_missing_files(tmp_path):
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        source = preference(tmp_path)
        (source / name).unlink()
        assert fault(source) == f"{source / name}: no such file"
    assert fault(tmp_path / "nowhere") == f"{tmp_path / 'nowhere/train.csv'}: no such file"


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_empty_files(tmp_path, name):
    source = preference(tmp_path)
    header = (source / name).read_text(encoding="utf-8").splitlines()[0]
    (source / name).write_text(header + "\n", encoding="utf-8")
    assert fault(source) == f"{source / name}: expected rows below the header, found none"
    (source / name).write_bytes(b"")
    assert fault(source) == f"{source / name}: expected a line of column names, found an empty file"
    (source / name).write_bytes(b"\n\n")
    assert fault(source) == f"{source / name}: expected a line of column names, found an empty line"


def test_columns(tmp_path):
    source = preference(tmp_path)
    good = (source / "train.csv").read_text(encoding="utf-8")
    (source / "train.csv").write_text(good.replace("response_a", "responce_a"), encoding="utf-8")
    assert 'train.csv: missing column "response_a" (did you mean "responce_a"?), found "id", ' in fault(source)
    (source / "train.csv").write_text(good.replace("model_b,prompt", "judge,prompt"), encoding="utf-8")
    line = fault(source)
    assert 'train.csv: unexpected column "judge"' in line and "`ignored`" in line
    (source / "train.csv").write_text(good.replace("model_b,prompt", "model_a,prompt"), encoding="utf-8")
    assert 'train.csv: column "model_a" stands twice' in fault(source)
    preference(source)
    write(source / "test.csv", [[*TEST_HEADER, "winner_tie"], ["t0", *['["y"]'] * 3, 1]])
    assert 'test.csv: unexpected column "winner_tie"' in fault(source)
    assert "separator: expected one ASCII character" in fault(source, replace(LMSYS, separator="\\t"))


BAD_ROWS = {
    "broken JSON": (
        train_row("q", '["x'),
        'column "prompt": expected a JSON list of turns, found "["x": broken JSON, ',
    ),
    "empty cell": (train_row("q", ""), 'column "prompt": expected a JSON list of turns, found "": broken JSON, '),
    "no list": (train_row("q", '{"a": 1}'), 'found "{"a": 1}": not a list'),
    "null": (train_row("q", "null"), 'found "null": not a list'),
    "a string": (train_row("q", '"x"'), "not a list"),
    "a number": (train_row("q", '["x", 1]'), "turn 2 is neither a string nor null"),
    "a list": (train_row("q", '[["x"]]'), "turn 1 is neither a string nor null"),
    "too deep": (train_row("q", "[" * 100_000), "expected a JSON list of turns"),
    "two lines": (train_row("q", "no\njson"), r"found 'no\njson': broken JSON, "),
    "lengths": (
        ["q", "m", "n", '["x"]', '["x", "y"]', '["x"]', 1, 0, 0],
        "expected as many turns in every text column, found 1 in prompt, 2 in response_a, 1 in response_b",
    ),
    "no winner": (train_row("q", label=(0, 0, 0)), f"expected exactly one 1 among {', '.join(WINNERS)}, found 0, 0, 0"),
    "two winners": (train_row("q", label=(0, "1.0", 1)), "expected exactly one 1 among"),
    "label 2": (train_row("q", label=(2, 0, 0)), 'column "winner_model_a": expected one of 0, 0.0, 1, 1.0, found "2"'),
    "no label": (train_row("q", label=(1, "", 0)), 'column "winner_model_b": expected one of 0, 0.0, 1, 1.0, found ""'),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows_are_named(tmp_path, kind):
    row, words = BAD_ROWS[kind]
    later = train_row("later", "also broken", (0, 0, 0))
    source = preference(tmp_path, [train_row("a"), train_row("b", '["two\nlines"]'), row, train_row("c"), later])
    line = fault(source)
    assert line.startswith(f'{source / "train.csv"}: row 3 (id "q"): ')
    assert words in line


def test_bad_cells_in_test(tmp_path):
    source = preference(tmp_path, test=[["t0", *['["y"]'] * 3], ["t1", '["y"]', "y", '["y"]']])
    line = fault(source)
    assert line.startswith(f'{source / "test.csv"}: row 2 (id "t1"): column "response_a": expected a JSON list')
    with pytest.raises(PodiumError, match="row 2"):
        read_test(source / "test.csv", LMSYS, strict=True)


def test_an_unknown_class(tmp_path):
    line = fault(single(tmp_path, [["a", "one", "EAP"], ["b", "two", "HPl"]]), SINGLE)
    assert line.endswith(
        'row 2 (id "b"): column "author": expected one of EAP, HPL, MWS, found "HPl" (did you mean "HPL"?)'
    )
    assert 'found ""' in fault(single(tmp_path, [["a", "one", ""]]), SINGLE)
    many = replace(SINGLE, classes=tuple(map(str, range(128))))
    assert "classes: expected at most 127, found 128" in fault(single(tmp_path), many)


@pytest.mark.parametrize("empty", ["", '""'])
def test_missing_ids(tmp_path, empty):
    source = single(tmp_path)
    (source / "train.csv").write_text(f"id,text,author\na,t,EAP\n{empty},t,HPL\n", encoding="utf-8")
    assert fault(source, SINGLE).endswith('train.csv: row 2: column "id": expected an id, found nothing')
    (source / "train.csv").write_text("id,text,author\na,t,EAP\n,,\n", encoding="utf-8")
    assert "row 2" in fault(source, SINGLE)


def test_repeated_ids(tmp_path):
    source = preference(tmp_path, [train_row("a"), train_row("b"), train_row("c"), train_row("b")])
    assert fault(source).endswith('train.csv: rows 2 and 4 have the same id "b"')
    source = preference(tmp_path, test=[["t", *['["y"]'] * 3]] * 2, sample=[["t", 0, 0, 1]])
    assert fault(source).endswith('test.csv: rows 1 and 2 have the same id "t"')
    with pytest.raises(PodiumError, match="same id"):
        read_test(source / "test.csv", LMSYS, strict=True)
    assert read_test(source / "test.csv", LMSYS, strict=False).height == 2


def test_an_id_in_both_files(tmp_path):
    source = preference(tmp_path, [train_row("a"), train_row("b")], test=[[i, *['["y"]'] * 3] for i in "tub"])
    line = fault(source)
    assert line == f'{source / "test.csv"}: row 3: id "b" is also in {source / "train.csv"}, row 2 (1 in all)'


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_not_utf8(tmp_path, name):
    source = preference(tmp_path)
    good = (source / name).read_bytes().splitlines(keepends=True)
    (source / name).write_bytes(good[0] + b'"\xe9",' + good[1] + b"".join(good[2:]))
    assert fault(source) == f"{source / name}: line 2: expected UTF-8, found the byte 0xe9"
    (source / name).write_bytes(b"".join(good).decode().encode("utf-16"))
    assert fault(source) == f"{source / name}: line 1: expected UTF-8, found the byte 0xff"


def test_not_utf8_in_an_ignored_column(tmp_path):
    source = preference(tmp_path)
    good = (source / "train.csv").read_bytes()
    (source / "train.csv").write_bytes(good.replace(b"r3,m,", b"r3,\xe9,"))
    assert "train.csv: line 5: expected UTF-8" in fault(source)


@pytest.mark.parametrize(("row", "found"), [("q,short", 2), ("q,too,long,EAP", 4)])
def test_ragged_rows(tmp_path, row, found):
    source = single(tmp_path)
    (source / "train.csv").write_text(f'id,text,author\na,"two\nlines",EAP\n{row}\nb,t,HPL\n', encoding="utf-8")
    assert fault(source, SINGLE).endswith(f"train.csv: row 2 (up to line 4): expected 3 fields, found {found}")


def test_a_short_row_is_no_empty_text(tmp_path):
    source = single(tmp_path)
    (source / "test.csv").write_text("id,text\nd,x\ne\n", encoding="utf-8")
    assert "test.csv: row 2 (up to line 3): expected 2 fields, found 1" in fault(source, SINGLE)
    assert read_test(source / "test.csv", SINGLE, strict=False).rows() == [("d", ["x"]), ("e", [""])]


@pytest.mark.parametrize("rows", ['a,"open,EAP\nb,t,HPL\n', 'a,"shut"too early,EAP\n'])
def test_broken_quoting(tmp_path, rows):
    source = single(tmp_path)
    (source / "train.csv").write_text("id,text,author\n" + rows, encoding="utf-8")
    assert "train.csv: row 1 (up to line " in fault(source, SINGLE)
    assert "expected quotes as in RFC 4180" in fault(source, SINGLE)


def test_sample_submission(tmp_path):
    source = preference(tmp_path, sample=[["t0", 0, 0, 1]])
    sample, test = source / "sample_submission.csv", source / "test.csv"
    assert fault(source) == f'{sample}: expected the ids of {test}, "t1" is missing (1 in all)'
    preference(source, sample=[[identity, 0, 0, 1] for identity in ("t1", "t0", "t2", "t3")])
    assert fault(source) == f'{test}: expected the ids of {sample}, "t2" is missing (2 in all)'
    preference(source, sample=[[identity, 0, 0, 1] for identity in ("t0", "t1", "t0")])
    assert fault(source) == f'{sample}: rows 1 and 3 have the same id "t0"'
    write(sample, [["id", "winner_model_b", "winner_model_a", "winner_tie"], ["t0", 0, 0, 1], ["t1", 0, 0, 1]])
    line = fault(source)
    assert line.startswith(f"{sample}: expected the columns id, {', '.join(WINNERS)}, found ")
    preference(source, sample=[[identity, 0, 0, 1] for identity in ("t1", "t0")])
    assert prepared(source)[1]["id"].to_list() == ["t0", "t1"]


def test_truth(tmp_path):
    source = preference(tmp_path, [train_row("a"), train_row("b")])
    write(source / "truth.csv", [["id", *WINNERS], ["b", 0.2, 0.3, 0.5]])
    assert (
        fault(source)
        == f'{source / "truth.csv"}: expected the ids of {source / "train.csv"}, "a" is missing (1 in all)'
    )
    for wrong in ("x", "", "0.4", "-0.3", "nan"):
        write(source / "truth.csv", [["id", *WINNERS], ["a", 0.2, 0.3, 0.5], ["b", 0.5, 0.2, wrong]])
        assert fault(source).endswith('truth.csv: id "b": expected probabilities of the classes, with sum 1')
    write(source / "truth.csv", [["id", *WINNERS[:2]], ["a", 0.2, 0.3]])
    assert 'truth.csv: missing column "winner_tie"' in fault(source)


def test_a_fault_leaves_the_former_folder(tmp_path):
    source = preference(tmp_path)
    train, _, _ = prepared(source)
    write(source / "train.csv", [TRAIN_HEADER, train_row("q", "broken")])
    with pytest.raises(PodiumError):
        prepare(source, LMSYS, source / "out/competition")
    assert os.listdir(source / "out") == ["competition"]
    assert pl.read_parquet(source / "out/competition/train.parquet").equals(train)


def test_the_kernel_survives_a_damaged_file(tmp_path):
    path = tmp_path / "test.csv"
    path.write_bytes(
        b'id,prompt,response_a,response_b,new\nt0,"[""caf\xe9""]",[1],"[""b""]"\nt1,"[""p""]"\nt2,a,b,c,d,e,f\n'
    )
    assert read_test(path, LMSYS, strict=False).rows() == [
        ("t0", ["caf\ufffd"], ["[1]"], ["b"]),
        ("t1", ["p"], [""], [""]),
        ("t2", ["a"], ["b"], ["c"]),
    ]
    path.write_text("id,prompt,response_a\n", encoding="utf-8")
    with pytest.raises(PodiumError, match='missing column "response_b"'):
        read_test(path, LMSYS, strict=False)


# Through the stage script


def workplace(folder, source, competition="lmsys"):
    """A folder with a params.yaml that points at `source`, for a stage to run in."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"] = {"path": str(source), "competition": str(competition)}
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return folder


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PODIUM_DEBUG", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


STAGE = [sys.executable, "-m", "stages.prepare"]


def test_the_stage_says_what_it_found(tmp_path):
    folder = workplace(tmp_path / "work", preference(tmp_path / "data"))
    done = run(STAGE, folder)
    assert (done.returncode, done.stderr) == (0, "")
    shares = ", ".join(f"{name} 33.3%" for name in WINNERS)
    lengths = "prompt 1 (at most 1), a 1 (at most 1), b 1 (at most 1)"
    assert done.stdout == f"{LMSYS.name}: 6 train and 2 test rows; {shares}; median characters: {lengths}\n"
    assert os.listdir(folder / "artifacts") == ["competition"]


def test_the_stage_ends_with_one_line(tmp_path):
    source = preference(tmp_path / "data", [train_row("q", "broken")])
    done = run(STAGE, workplace(tmp_path / "work", source))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {source / 'train.csv'}: row 1 ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path / "work/artifacts") == []


def can_mount():
    if not shutil.which("unshare"):
        return False
    return (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


# 16k: the disk fills up in the footer of the parquet file, which polars calls a transport error.
@pytest.mark.parametrize(("size", "rows"), [("16k", 4), ("400k", 600)])
def test_a_full_disk(tmp_path, size, rows):
    if not can_mount():
        pytest.skip("this system does not let a user mount a file system of their own (unshare -rm)")
    noise = [os.urandom(500).hex() for _ in range(rows)]
    source = preference(
        tmp_path / "data",
        [train_row(f"r{i}", f'["{text}"]') for i, text in enumerate(noise)],
        [[f"t{i}", *[f'["{text[::-1]}"]'] * 3] for i, text in enumerate(noise)],
    )
    folder = workplace(tmp_path / "work", source)
    (folder / "artifacts").mkdir()
    script = f'mount -t tmpfs -o size={size} none artifacts && "$@"; code=$?; ls -A artifacts; exit $code'
    done = run(["unshare", "-rm", "sh", "-c", script, "sh", *STAGE], folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the disk is full: ") and done.stderr.count("\n") == 1


def test_a_full_disk_is_no_fault_of_the_files(tmp_path, monkeypatch):
    source = preference(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.data.ingest.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(source, LMSYS, source / "out/competition")
    assert os.listdir(source / "out") == []


# Real competitions


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
        "task": "single",
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
