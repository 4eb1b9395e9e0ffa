"""Labels, groups and times: what train.parquet holds of each outcome, and what a wrong cell is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from competition_files import fault, prepared, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competitions.submission import submission_columns
from pipeline.competitions.task import AUTO, Competition, Label
from pipeline.errors import PodiumError
from pipeline.ingest.labels import connected_rows, label_columns, label_fault, labels, moment
from pipeline.ingest.prepare import read_test

TEXT = Competition("essays", "text", "log_loss", "id", {"text": "text"}, Label(column="author"), classes=("x", "y"))
YES_OR_NO = replace(TEXT, classes=("0", "1"))
LABELS = replace(TEXT, outcome="labels", classes=(), label=Label(columns=("p", "q")))
NUMBER = replace(TEXT, outcome="numbers", classes=(), label=Label(columns=("p",)))
NUMBERS = replace(NUMBER, label=Label(columns=("p", "q")))
ORDERED = replace(TEXT, outcome="ordered", classes=(), label=Label(column="score", low=-1, high=3))
ONE_HOT = replace(TEXT, label=Label(one_hot=("p", "q")))
JOINED = replace(TEXT, classes=AUTO, label=Label(joined=("p", "q")), answers={"p:q": "label"})
CHOICE = Competition(
    *(
        "quiz",
        "choices",
        "accuracy",
        "id",
        {"ask": "ask", "A": "A", "B": "B"},
        Label(column="right", values=("1", "2")),
    ),
    outcome="choice",
    options=("A", "B"),
    answers={"right": "label"},
)
PAIR = Competition("pairs", "pair", "pearson", "id", {"a": "a", "b": "b"}, Label(columns=("p",)), outcome="numbers")


def files(folder: Path, competition: Competition, answers: dict[str, list[str]], **more: list[str]) -> Path:
    """A small competition with these columns of answers in train.csv; `more` holds other columns of it."""
    folder.mkdir(exist_ok=True)
    rows = len(next(iter(answers.values())))
    texts = {column: [f"{column} {row}" for row in range(rows)] for column in competition.texts.values()}
    train = {"id": [f"r{row}" for row in range(rows)]} | texts | answers | more
    write_table(folder / competition.train, train, competition.separator)
    write_table(folder / competition.test, {"id": ["t"]} | {name: cells[:1] for name, cells in texts.items()})
    asked = submission_columns(competition)
    write_table(folder / "sample_submission.csv", {"id": ["t"]} | {name: ["0"] for name in asked})
    return folder


def test_numbers_name_classes_however_they_are_written(tmp_path: Path) -> None:
    cells = ["0", "1", "0.0", "1.0", "True", "false", "TRUE"]
    train, _, _ = prepared(files(tmp_path, YES_OR_NO, {"author": cells}), YES_OR_NO)
    assert train["label"].to_list() == [0, 1, 0, 1, 1, 0, 1]
    assert train.schema["label"] == pl.Int16
    line = fault(files(tmp_path / "strict", TEXT, {"author": ["x", "X"]}), TEXT)
    assert line.endswith('row 2 (id "r1"): column "author": expected one of x, y, found "X"')
    truths = replace(TEXT, classes=("false", "true"))  # JSON's; Python and pandas write False
    train, _, _ = prepared(files(tmp_path / "json", truths, {"author": ["False", "true", "TRUE"]}), truths)
    assert train["label"].to_list() == [0, 1, 1]
    assert fault(files(tmp_path / "t", truths, {"author": ["True", "1"]}), truths).endswith('found "1"')


def test_an_option_is_a_class_index(tmp_path: Path) -> None:
    train, test, facts = prepared(files(tmp_path, CHOICE, {"right": ["2", "1", "2.0"]}), CHOICE)
    assert train["label"].to_list() == [1, 0, 1]
    assert test.columns == ["id", "ask", "A", "B"]
    assert facts["competition"]["options"] == ["A", "B"]


def test_labels_are_shares_and_may_be_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = files(tmp_path, LABELS, {"p": ["0", "True", "0.25", ""], "q": ["0.0", "0", "", "0e3"]})
    train, _, _ = prepared(source, LABELS)
    assert train.schema["label"] == pl.Array(pl.Float64, 2)
    assert np.array_equal(train["label"].to_numpy(), [[0, 0], [1, 0], [0.25, np.nan], [np.nan, 0]], equal_nan=True)
    assert 'train.csv: no row has the label "q"; it keeps its column' in capsys.readouterr().err
    nothing = fault(files(tmp_path / "none", LABELS, {"p": ["", ""], "q": ["1", "0"]}), LABELS)
    assert nothing.endswith('train.csv: column "p": expected a label in some row, found none')


def test_numbers_bring_their_scale(tmp_path: Path) -> None:
    source = files(tmp_path, NUMBERS, {"p": ["1", "3", ""], "q": ["-1e1", ".5", "2."]})
    train, _, facts = prepared(source, NUMBERS)
    values = train["label"].to_numpy()
    assert np.array_equal(values, [[1, -10], [3, 0.5], [np.nan, 2]], equal_nan=True)
    assert facts["competition"]["centre"] == np.nanmean(values, axis=0).tolist()
    assert facts["competition"]["spread"] == np.nanstd(values, axis=0).tolist()
    one_value = fault(files(tmp_path / "constant", NUMBERS, {"p": ["7", "7.0", ""], "q": ["1", "2", "3"]}), NUMBERS)
    assert one_value.endswith('train.csv: column "p": expected different numbers, found one value only, 7.0')
    nothing = fault(files(tmp_path / "none", NUMBERS, {"p": ["", ""], "q": ["1", "2"]}), NUMBERS)
    assert nothing.endswith('column "p": expected different numbers, found none')


def test_texts_are_no_classes(tmp_path: Path) -> None:
    competition = replace(TEXT, classes=AUTO, label=Label(column="span"), answers={"span": "label"})
    spans = [f"words {row}" for row in range(100)]
    line = fault(files(tmp_path / "a", competition, {"span": spans}), competition)
    assert "found 100 different values in 100 rows: answers that are texts cannot be said" in line
    twice = files(tmp_path / "b", competition, {"span": spans[:51] + spans[:51]})
    assert len(prepared(twice, competition)[2]["competition"]["classes"]) == 51


def test_one_column_may_list_the_labels(tmp_path: Path) -> None:
    cells = ["a, b c", "", "b c", "z,a", " a ,a"] * 5
    competition = replace(TEXT, metric="samples_f1", outcome="labels", label=Label(listed="tags", join=","), join=",")
    competition = replace(competition, classes=("b c", "a", "never"), answers={"tags": "labels"})
    train, _, _ = prepared(files(tmp_path / "a", competition, {"tags": cells}), competition)
    assert train.schema["label"] == pl.Array(pl.Float64, 3)
    assert train["label"].to_list()[:5] == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]
    found = replace(competition, classes=AUTO)  # a label of few rows is none
    _, _, facts = prepared(files(tmp_path / "b", found, {"tags": [*cells, "rare"]}), found)
    assert facts["competition"]["classes"] == ["a", "b c", "z"]
    source = files(tmp_path / "c", found, {"tags": cells})
    assert fault(source, replace(found, join=" ")) == 'join: expected what parts the labels of tags, "b c" holds it'
    write_table(source / "sample_submission.csv", {"id": ["t"], "best": ["a"]})
    assert fault(source, found).endswith('found "id", "best"; write answers: {best: labels}')


def test_numbers_that_are_learned_as_logarithms_have_their_scale(tmp_path: Path) -> None:
    competition = replace(NUMBER, label=Label(columns=("p",), log=True))
    train, _, facts = prepared(files(tmp_path / "a", competition, {"p": ["0", "9", "1e3"]}), competition)
    logs = np.log1p([0.0, 9.0, 1000.0])
    assert train["label"].to_list() == [[0.0], [9.0], [1000.0]]
    found = facts["competition"]
    assert (found["centre"], found["spread"]) == ([logs.mean()], [logs.std()])
    line = fault(files(tmp_path / "b", competition, {"p": ["0", "-0.5", "1e3"]}), competition)
    assert line.endswith('column "p": expected a number from 0 up, found "-0.5"')


def test_a_score_is_one_whole_number(tmp_path: Path) -> None:
    train, _, facts = prepared(files(tmp_path, ORDERED, {"score": ["-1", "3.0", "0"]}), ORDERED)
    assert train["label"].to_list() == [[-1], [3], [0]]
    assert facts["competition"]["label"]["low"] == -1
    alone = fault(files(tmp_path / "alone", ORDERED, {"score": ["2", "2.0"]}), ORDERED)
    assert alone.endswith('train.csv: column "score": expected different scores, found 2 alone')


@pytest.mark.parametrize(
    ("competition", "cell", "words"),
    [
        (LABELS, "1.5", 'column "q": expected a number from 0 to 1, or nothing, found "1.5"'),
        (LABELS, "nan", 'column "q": expected a number from 0 to 1, or nothing, found "nan"'),
        (NUMBERS, "1,5", 'column "q": expected a number, or nothing, found "1,5"'),
        (NUMBERS, "1e999", 'column "q": expected a number, or nothing, found "1e999"'),
        (NUMBER, "", 'column "p": expected a number, found ""'),
        (NUMBER, " 1", 'column "p": expected a number, found " 1"'),
        (ORDERED, "2.5", 'column "score": expected a whole number from -1 to 3, found "2.5"'),
        (ORDERED, "4", 'column "score": expected a whole number from -1 to 3, found "4"'),
        (ORDERED, "", 'column "score": expected a whole number from -1 to 3, found ""'),
        (CHOICE, "A", 'column "right": expected one of 1, 2, found "A"'),
    ],
)
def test_a_wrong_cell_is_named(competition: Competition, cell: str, words: str, tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        given = replace(competition, train=f"train{suffix}")
        columns = label_columns(given)
        answers = {name: ["1", "2" if competition in (CHOICE, NUMBER, NUMBERS) else "0", "1"] for name in columns}
        answers[columns[-1]][1] = cell
        line = fault(files(tmp_path / suffix[1:], given, answers), given)
        assert line == f'{tmp_path / suffix[1:] / given.train}: row 2 (id "r1"): {words}'


NUMERALS = st.text(st.sampled_from("0123456789+-.eE infaNxy_ １"), max_size=8)
CELLS = NUMERALS | st.floats().map(str) | st.sampled_from(["", "True", "false", "x", "y", "1", "0", "NA"])


@settings(max_examples=300, deadline=None)
@given(
    cells=st.lists(CELLS, min_size=2, max_size=2),
    competition=st.sampled_from([TEXT, YES_OR_NO, LABELS, NUMBER, NUMBERS, ORDERED, ONE_HOT, CHOICE]),
)
def test_the_fast_and_the_exact_reader_agree(cells: list[str], competition: Competition) -> None:
    row = dict(zip(label_columns(competition), cells, strict=False))
    found = labels(pl.DataFrame({name: [cell] for name, cell in row.items()}), competition)
    assert (label_fault(row, competition) is None) == (found.null_count() == 0)
    if competition is NUMBER and not found.null_count():
        assert found[0].to_list() == [float(cells[0])]


def test_classes_are_found_and_may_stand_in_two_columns(tmp_path: Path) -> None:
    source = files(tmp_path, JOINED, {"p": ["b", "a", "a"], "q": ["1", "", "NA"]})
    train, _, facts = prepared(source, JOINED)
    assert facts["competition"]["classes"] == ["a:NA", "b:1"]
    assert train["label"].to_list() == [1, 0, 0]
    auto = replace(TEXT, classes=AUTO, answers={"author": "label"})
    assert prepared(files(tmp_path / "auto", auto, {"author": ["z", "y"]}), auto)[2]["competition"]["classes"] == [
        "y",
        "z",
    ]
    line = fault(files(tmp_path / "empty", auto, {"author": ["z", "", "y"]}), auto)
    assert line.endswith('row 2 (id "r1"): column "author": expected one of y, z, found ""')
    line = fault(files(tmp_path / "one", auto, {"author": ["z", "z"]}), auto)
    assert line.endswith('column "author": expected 2 to 32767 different classes, found 1')
    line = fault(files(tmp_path / "ours", auto, {"author": ["z", "label"]}), auto)
    assert 'no class can be named "label"' in line


def test_rows_of_a_group_are_marked(tmp_path: Path) -> None:
    by = replace(TEXT, group=("page", "text"))
    source = files(
        tmp_path, by, {"author": ["x", "y", "x", "y"]}, page=["A", "a ", "A", "B"], text=["T", "t", "u", "t"]
    )
    train, _, _ = prepared(source, by)
    groups = train["group"].to_list()
    assert groups[0] == groups[1] and len(set(groups)) == 3
    assert train.columns == ["id", "label", "text", "group"]
    pair = files(
        tmp_path / "pair", PAIR, {"p": list("123456")}, a=["s", "t", " S", "", "u", ""], b=["t", "v", "w", "", "x", "y"]
    )
    assert prepared(pair, PAIR)[0]["group"].to_list() == [0, 0, 0, 1, 2, 3]
    named = replace(PAIR, group=("id",))
    assert prepared(pair, named)[0]["group"].n_unique() == 6


def test_texts_link_rows_through_others() -> None:
    rows = pl.LazyFrame({"a": [["1"], ["2"], ["4"], ["9"]], "b": [["2"], ["3"], ["3"], ["8"]]})
    assert connected_rows(rows, ("a", "b")).to_list() == [0, 0, 0, 1]


def test_times_are_numbers_or_dates(tmp_path: Path) -> None:
    by = replace(TEXT, time="when")
    dates = ["1970-01-02", "2024-05-31 10:00:00", "2024-05-31T10:00:00+02:00"]
    train, _, _ = prepared(files(tmp_path, by, {"author": ["x", "y", "x"]}, when=dates), by)
    assert train["time"].to_list() == [86400.0, 1717149600.0, 1717142400.0]
    wrong = {"31.05.2024": "a number or an ISO date such as 2024-05-31", "7": "a date as in row 1", "": "a number or"}
    for cell, words in wrong.items():
        line = fault(files(tmp_path / f"x{cell}", by, {"author": ["x", "y"]}, when=["2024-01-01", cell]), by)
        assert f'row 2 (id "r1"): column "when": expected {words}' in line
        assert line.endswith(f'found "{cell}"')
    assert moment("1e999") is None


def encoded(rows: list[dict[str, Any]], suffix: str, path: Path) -> None:
    if suffix == ".parquet":
        pl.DataFrame(rows, strict=False).write_parquet(path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        columns = {name: {str(place): row[name] for place, row in enumerate(rows)} for name in rows[0]}
        path.write_text(json.dumps(columns), encoding="utf-8")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet", "pandas.json"])
def test_other_formats_hold_the_same_rows(suffix: str, tmp_path: Path) -> None:
    given = replace(NUMBERS, turns="json", train=f"train{suffix}", test=f"test{suffix}")
    source = files(tmp_path, replace(given, train="train.csv", test="test.csv"), {"p": ["1"], "q": ["1"]})
    turns = [["one", None], [""], ["😀\n"]]
    rows = [{"id": 7 + n, "text": each, "p": n / 2, "q": None} for n, each in enumerate(turns)]
    encoded([row | {"q": float(n)} for n, row in enumerate(rows)], suffix, source / given.train)
    encoded([{"id": "t", "text": ["y"]}], suffix, source / given.test)
    train, test, _ = prepared(source, given)
    assert train["id"].to_list() == ["7", "8", "9"]
    assert train["text"].to_list() == turns
    assert train["label"].to_list() == [[0, 0], [0.5, 1], [1, 2]]
    assert test.rows() == [("t", ["y"])]
    assert read_test(source / given.test, given, strict=False).equals(test)


def test_a_number_as_an_id_keeps_its_digits(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text('[{"id": 007, "text": "x"}]'.replace("007", "7.50"), encoding="utf-8")
    assert read_test(tmp_path / "test.json", replace(TEXT, test="test.json"), strict=True)["id"].to_list() == ["7.50"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.json", "[{", "train.json: expected JSON, found: "),
        ("train.json", "3", "train.json: expected a list of records, or column: [values], found a number"),
        ("train.json", "[]", "train.json: expected a line of column names"),
        ("train.json", '{"id": [1], "text": ["a", "b"]}', "train.json: expected lists of one length, found "),
        ("train.json", '[{"id": 1, "text": "a", "author": "x"}, 5]', "train.json: row 2: expected a record"),
        ("train.jsonl", '{"id": 1, "text": "a", "author": "x"}\n{"id', "train.jsonl: line 2: expected JSON, found: "),
        (
            "train.jsonl",
            '{"id":1,"text":"a","author":"x"}\n{"id":2,"author":"x"}',
            'row 2: column "text": expected a key',
        ),
        ("train.jsonl", '{"id":1,"text":"a"}', 'train.jsonl: missing column "author"'),
        ("train.jsonl", b'{"id":1,"text":"\xe9"}', "train.jsonl: line 1: expected UTF-8, found the byte 0xe9"),
        ("train.parquet", "no", "train.parquet: expected a parquet file, found: "),
        (
            "train.csv",
            b"PAR1",
            "train.csv: expected a table of text, found a parquet file: let its name end in .parquet",
        ),
        ("train.csv", b"\x1f\x8b\x08", "train.csv: expected a table of text, found a gzip archive: unpack it"),
        ("train.jsonl", b"PK\x03\x04", "train.jsonl: expected a table of text, found a zip archive: unpack it"),
        ("train.JSON", "[]", "train.JSON: expected an ending in small letters, such as .json"),
        (
            "train.json",
            '{"id": {"0": 1, "1": 2}, "text": {"0": "a"}, "author": {"0": "x", "1": "y"}}',
            'train.json: column "text": expected a value for "1", found none',
        ),
        (
            "train.json",
            '[{"id": 1, "text": "a", "text": "b", "author": "x"}]',
            'found: the key "text" twice in a record',
        ),
        (
            "train.jsonl",
            '{"id": 1, "id": 2, "text": "a", "author": "x"}',
            'line 1: expected JSON, found: the key "id" twice',
        ),
    ],
)
def test_broken_tables_are_one_line(name: str, content: str | bytes, words: str, tmp_path: Path) -> None:
    source = files(tmp_path, TEXT, {"author": ["x", "y"]})
    (source / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in fault(source, replace(TEXT, train=name))


def test_columns_that_are_keyed_by_row_may_have_their_rows_in_any_order(tmp_path: Path) -> None:
    path, given = tmp_path / "test.json", replace(TEXT, test="test.json")
    path.write_text('{"id": {"0": 7, "1": 8}, "text": {"1": "eight", "0": "seven"}}')
    assert read_test(path, given, strict=True).rows() == [("7", ["seven"]), ("8", ["eight"])]
    path.write_text('{"id": {"0": 7, "1": 8}, "text": {"1": "eight", "2": "nine"}}')
    assert read_test(path, given, strict=False).rows()[:2] == [("7", [""]), ("8", ["eight"])]


def test_numbers_whose_squares_are_none_are_one_line(tmp_path: Path) -> None:
    source = files(tmp_path, NUMBER, {"p": ["1e200", "-1e200"]})
    assert 'column "p": expected numbers up to 1e+100, found one of 1e+200' in fault(source, NUMBER)


def test_a_folder_in_a_tables_place_is_one_line(tmp_path: Path) -> None:
    source = files(tmp_path, TEXT, {"author": ["x", "y"]})
    (source / "train.csv").unlink()
    (source / "train.csv").mkdir()
    assert fault(source, TEXT) == f"{source}/train.csv: expected a file"


def test_texts_that_a_parquet_file_holds_as_bytes_are_texts(tmp_path: Path) -> None:
    path, given = tmp_path / "test.parquet", replace(TEXT, test="test.parquet", turns="json")
    pl.DataFrame({"id": [b"a", b"b"], "text": [[b"x\xc3\xa9"], [b"y\xe9", None]]}).write_parquet(path)
    assert read_test(path, given, strict=False).rows() == [("a", ["xé"]), ("b", ["y\ufffd", None])]
    with pytest.raises(PodiumError, match=r"test.parquet: row 2: expected UTF-8, found the byte 0xe9"):
        read_test(path, given, strict=True)
    pl.DataFrame({"id": [b"a"], "text": [[b"x\xc3\xa9"]]}).write_parquet(path)
    assert read_test(path, given, strict=True).rows() == [("a", ["xé"])]


def test_the_kernel_takes_the_last_of_a_key_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text('[{"id": 1, "text": "a", "text": "b"}]')
    assert read_test(tmp_path / "test.json", replace(TEXT, test="test.json"), strict=False).rows() == [("1", ["b"])]


def test_the_kernel_passes_over_a_broken_record(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(b'{"id": 1, "text": "\xe9"}\n{"id"\n[1]\n{"id": 2, "text": null, "new": 1}\n')
    rows = read_test(tmp_path / "test.jsonl", TEXT, strict=False).rows()
    assert rows == [("1", ["\ufffd"]), ("", [""]), ("", [""]), ("2", [""])]


@pytest.mark.parametrize(
    ("competition", "sample", "words"),
    [
        (TEXT, {"author": ["x", "y"]}, "; write answers: {author: label}"),
        (YES_OR_NO, {"author": ["0.5", "0.5"]}, "; write answers: {author: 1}"),
        (NUMBER, {"score": ["0.5", "3"]}, "; write answers: {score: mean}"),
        (TEXT, {"best": ["x y", "y x"]}, "; write answers: {best: top 2}"),
        (TEXT, {"best": ["x|y", "y|x"]}, '; write answers: {best: top 2} and join: "|"'),
        (TEXT, {"px": ["0.5", "0.5"], "py": ["0.5", "0.5"]}, "; perhaps answers: {px: x, py: y}"),
        (TEXT, {"best": ["who", "knows"]}, 'found "id", "best"'),
    ],
)
def test_a_sample_with_other_columns_says_which_key_would_fit(
    competition: Competition, sample: dict[str, list[str]], words: str, tmp_path: Path
) -> None:
    source = files(tmp_path, competition, {name: ["1", "0"] for name in label_columns(competition)})
    write_table(source / "sample_submission.csv", {"id": ["t", "u"]} | sample)
    line = fault(source, competition)
    assert line.startswith(f"{source / 'sample_submission.csv'}: expected the columns id, ")
    assert line.endswith(words)
    assert len(line) <= len(str(source / "sample_submission.csv")) + 202


def test_every_column_that_is_not_named_may_be_passed_over(tmp_path: Path) -> None:
    source = files(tmp_path, TEXT, {"author": ["x", "y"]}, note=["", "b"])
    assert 'unexpected column "note"' in fault(source, TEXT)
    assert prepared(source, replace(TEXT, ignored=("*",)))[0].columns == ["id", "label", "text"]
    numbered = files(tmp_path / "tab", replace(TEXT, separator="\t"), {"author": ["x", "y"]})
    text = (numbered / "train.csv").read_text(encoding="utf-8").splitlines()
    (numbered / "train.csv").write_text("\n".join(f"{n}\t{row}" for n, row in zip(["", 5, 6], text, strict=True)))
    (numbered / "test.csv").write_text("\tid\ttext\n0\tt\tx\n")
    assert prepared(numbered, replace(TEXT, separator="\t"))[0]["id"].to_list() == ["r0", "r1"]


def test_what_only_scores_does_not_change_the_hash(tmp_path: Path) -> None:
    source = files(tmp_path, TEXT, {"author": ["x", "y"]})
    first = prepared(source, TEXT)[2]["data"]
    other = replace(TEXT, metric="accuracy", medals={"gold": 0.9}, hidden_rows=3, submission="file", join=",")
    assert prepared(source, other)[2]["data"] == first
    write_table(source / "sample_submission.csv", {"id": ["t"], "author": ["x"]})
    assert prepared(source, replace(TEXT, answers={"author": "label"}))[2]["data"] == first


@pytest.mark.parametrize(
    ("competition", "right", "wrong", "words"),
    [
        (LABELS, "0.5", "1.5", "expected probabilities"),
        (NUMBER, "-7", "inf", "expected finite numbers"),
        (CHOICE, "0.5", "0.6", "expected probabilities of the classes, with sum 1"),
    ],
)
def test_truth_is_the_true_means(competition: Competition, right: str, wrong: str, words: str, tmp_path: Path) -> None:
    answers = {name: ["1", "0" if competition is LABELS else "2"] for name in label_columns(competition)}
    source = files(tmp_path, competition, answers)
    table = {"id": ["r1", "r0"]} | {name: [right, right] for name in competition.outputs}
    write_table(source / "truth.csv", table)
    prepared(source, competition)
    truth = pl.read_parquet(source / "out/competition/truth.parquet")
    assert truth.columns == ["id", *competition.outputs]
    assert truth["id"].to_list() == ["r0", "r1"]
    table[competition.outputs[-1]][0] = wrong
    write_table(source / "truth.csv", table)
    (source / "out").rename(source / "before")
    assert fault(source, competition).endswith(f'truth.csv: id "r1": {words}')
