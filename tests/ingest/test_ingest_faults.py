"""prepare: every fault of the files is one line that says where it is."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import polars as pl
import pytest
from competition_files import (
    LMSYS,
    SINGLE,
    TEST_HEADER,
    TRAIN_HEADER,
    WINNERS,
    fault,
    preference,
    prepared,
    single,
    train_row,
    write,
)

from pipeline.errors import PodiumError
from pipeline.ingest.prepare import prepare, read_test


def test_missing_files(tmp_path):
    for name in ("train.csv", "test.csv", "sample_submission.csv"):
        source = preference(tmp_path)
        (source / name).unlink()
        assert fault(source) == f"{source / name}: no such file"
        (source / f"{name}.zip").write_bytes(b"PK")
        assert fault(source) == f"{source / name}: no such file; unpack {name}.zip beside it"
        (source / f"{name}.zip").unlink()
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


def test_an_id_in_both_files_is_a_warning(tmp_path, capsys):
    source = preference(tmp_path, [train_row("a"), train_row("b")], test=[[i, *['["y"]'] * 3] for i in "tub"])
    train, test, _ = prepared(source)
    assert (train["id"].to_list(), test["id"].to_list()) == (["a", "b"], ["t", "u", "b"])
    line = f'warning: {source / "test.csv"}: row 3: id "b" is also in {source / "train.csv"}, row 2 (1 in all)'
    assert f"{line}; a member of kind external would answer both rows alike" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "sample_submission.csv"])
def test_not_utf8(tmp_path, name):
    source = preference(tmp_path)
    good = (source / name).read_bytes().splitlines(keepends=True)
    (source / name).write_bytes(good[0] + b'"\xe9",' + good[1] + b"".join(good[2:]))
    hint = "older files are often in `encoding: latin-1`"
    assert fault(source) == f"{source / name}: line 2: expected UTF-8, found the byte 0xe9; {hint}"
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
    write(sample, [["winner_model_b", "id", "winner_model_a", "winner_tie"], [0, "t1", 0, 1], [0, "t0", 0, 1]])
    assert prepared(source)[1]["id"].to_list() == ["t0", "t1"]
    shutil.rmtree(source / "out")
    write(sample, [["id", "winner_model_b", "winner_model_b", "winner_tie"], ["t0", 0, 0, 1], ["t1", 0, 0, 1]])
    assert fault(source) == f'{sample}: column "winner_model_b" stands twice in the header'
    write(sample, [["id", "winner_model_b", "winner_tie"], ["t0", 0, 1], ["t1", 0, 1]])
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
