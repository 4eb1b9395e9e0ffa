"""What the YAML file says of cells and rows: lists and records in a cell, rows left out, columns and files of train."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from competition_files import SINGLE, fault, prepared, write

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import AUTO, SIDES, Competition, Label, Lookup, competition_from_json
from pipeline.errors import PodiumError
from pipeline.ingest.prepare import glance, read_test
from pipeline.kernel.submission import validate_submission
from pipeline.package.rehearse_rows import make_rows

CHOICES = Competition(
    name="endings",
    task="choices",
    metric="accuracy",
    id="id",
    texts={"stem": "stem", "A": "first", "B": "second", "C": "third"},
    outcome="choice",
    options=("A", "B", "C"),
    label=Label(column="answer"),
    answers={"answer": "label"},
    train="train.jsonl",
    test="test.jsonl",
    parts={"question.choices.text": ("first", "second", "third"), "question.stem": ("stem",)},
)


def question(stem: str, *options: str) -> dict:
    return {"stem": stem, "choices": [{"text": each, "label": "x"} for each in options]}


def questions(folder: Path, *options: str) -> Path:
    """Two questions for training, the second with these options, and one to be answered."""
    folder.mkdir(exist_ok=True)
    rows = [("a", question("why", "so, what", "é", "c"), "A"), ("b", question("who", *options), "B")]
    train = [{"id": each, "question": asked, "answer": answer} for each, asked, answer in rows]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    (folder / "test.jsonl").write_text(json.dumps({"id": "t", "question": question("how", "1", "2", "3")}) + "\n")
    write(folder / "sample_submission.csv", [["id", "answer"], ["t", "A"]])
    return folder


def test_records_and_lists_become_columns(tmp_path: Path) -> None:
    source = questions(tmp_path, "x", "y")
    train, test, facts = prepared(source, CHOICES)
    assert train.select("stem", "A", "B", "C").rows() == [
        (["why"], ["so, what"], ["é"], ["c"]),
        (["who"], ["x"], ["y"], [""]),  # fewer options than names
    ]
    assert test.row(0) == ("t", ["how"], ["1"], ["2"], ["3"])
    assert facts["competition"]["parts"]["question.stem"] == ["stem"]
    assert glance(source, CHOICES, 2) == CHOICES


def test_a_cell_that_cannot_be_taken_apart_is_a_fault_but_to_the_scored_run(tmp_path: Path) -> None:
    line = fault(questions(tmp_path / "a", "x", "y", "z", "w"), CHOICES)
    assert line.endswith('train.jsonl: row 2: column "question": expected a list of 3, found a list of 4')
    broken = questions(tmp_path / "b", "x")
    record = {"id": "t", "question": "no record"}
    (broken / "test.jsonl").write_text(json.dumps(record))
    line = fault(broken, CHOICES)
    assert line.endswith('row 1: column "question": expected a list or a record in JSON, found "no record"')
    assert read_test(broken / "test.jsonl", CHOICES, strict=False).row(0) == ("t", [""], [""], [""], [""])
    (broken / "test.jsonl").write_text(json.dumps(record | {"question": ["a list"]}))
    assert 'expected a record with "choices", found "["a list"]"' in fault(broken, CHOICES)
    line = fault(questions(tmp_path / "c", "x"), replace(CHOICES, parts={"questions.stem": ("stem",)}))
    assert line.endswith('missing column "questions.stem" of parts (did you mean "question"?)')


@pytest.mark.parametrize("cell", ['["one", "two"]', "['one', 'two']"])
def test_a_list_in_a_csv_file_is_json_or_pythons(cell: str, tmp_path: Path) -> None:
    pair = replace(SINGLE, task="pair", texts={"a": "one", "b": "two"}, parts={"pair": ("one", "two")})
    write(tmp_path / "train.csv", [["id", "pair", "author"], *(["a", cell, name] for name in SINGLE.classes[:1])])
    write(tmp_path / "test.csv", [["id", "pair"], ["t", ""]])
    write(tmp_path / "sample_submission.csv", [["id", *SINGLE.classes], ["t", 0.3, 0.3, 0.4]])
    train, test, _ = prepared(tmp_path, pair)
    assert train.row(0)[2:4] == (["one"], ["two"])
    assert test.row(0) == ("t", [""], [""])  # an empty cell has no parts


def test_parts_are_names_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    known = "name: x\ntask: text\nmetric: rmse\noutcome: numbers\nid: id\ntexts: {t: t}\nlabel: {columns: [y]}\n"
    file.write_text(known + "parts: {a: [b, c], d: b}\nleft_out: {y: -1}\n")
    with pytest.raises(PodiumError, match=r"parts.a: expected new names, each once, found b, c, b"):
        load_competition(str(file))
    file.write_text(known + "parts: {a: b}\nleft_out: {y: [-1, ]}\nlookup: [{key: id, train: y.csv, only: train}]\n")
    found = load_competition(str(file))
    assert (found.parts, found.left_out) == ({"a": ("b",)}, {"y": ("-1",)})
    file.write_text(known + "lookup: [{key: id, train: y.csv, test: z.csv, only: train}]\n")
    with pytest.raises(PodiumError, match=r"lookup.0: only train rows are looked up, but test names z.csv"):
        load_competition(str(file))


def test_labels_may_stand_in_a_file_of_their_own_and_some_rows_have_none(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [["", "text"], *([n, f"words {n}"] for n in range(4))])
    write(tmp_path / "labels.csv", [["", "author"], *zip(range(4), ["EAP", "-", "MWS", ""], strict=True)])
    write(tmp_path / "test.csv", [["", "body"], ["9", "other words"]])
    write(tmp_path / "sample_submission.csv", [["", *SINGLE.classes], ["9", 0.3, 0.3, 0.4]])
    lookup = (Lookup("", "labels.csv", only="train"),)
    competition = replace(SINGLE, id="", lookup=lookup, renamed={"body": "text"}, left_out={"author": ("-", "")})
    train, test, _ = prepared(tmp_path, competition)
    assert train.rows() == [("0", 0, ["words 0"]), ("2", 2, ["words 2"])]
    assert test.rows() == [("9", ["other words"])]
    assert read_test(tmp_path / "test.csv", competition, strict=False).equals(test)
    make_rows(tmp_path, made := tmp_path / "made", 8, competition)  # the rehearsal's rows are train's
    assert pl.read_csv(made / "test.csv").columns == ["", "body"]
    assert set(read_test(made / "test.csv", competition, strict=True)["text"].list.first()) == {
        f"words {n}" for n in range(4)
    }
    shutil.rmtree(tmp_path / "out")
    wrong = replace(competition, left_out={"writer": ("",)})
    assert fault(tmp_path, wrong).endswith('missing column "writer" of left_out')
    assert fault(tmp_path, replace(competition, renamed={})).startswith(
        f'{tmp_path / "test.csv"}: missing column "text"'
    )


def test_two_values_may_be_one_class(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [["id", "text", "author"], *([n, "x", w] for n, w in enumerate(["E", "tie", "bad"]))])
    write(tmp_path / "test.csv", [["id", "text"], ["t", "x"]])
    write(tmp_path / "sample_submission.csv", [["id", "author"], ["t", "E"]])
    answers = {"author": "label"}
    named = replace(SINGLE, classes=("E", "tie"), label=Label("author", also={"bad": "tie"}), answers=answers)
    for competition in (named, replace(named, classes=AUTO)):
        train, _, facts = prepared(tmp_path, competition)
        assert train["label"].to_list() == [0, 1, 1]
        assert facts["competition"]["classes"] == ["E", "tie"]
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize(
    ("also", "words"),
    [
        ("{bad: Tie}", 'label.also.bad: expected a value of the label that another one means, found "Tie"'),
        ("{E: tie}", "label.also.E: expected a value of the label that another one means"),
        ("{bad: worse, worse: tie}", "label.also.bad: expected a value of the label that another one means"),
    ],
)
def test_what_another_value_means_must_be_known(also: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    known = "name: x\ntask: text\nmetric: log_loss\nid: id\ntexts: {t: t}\n"
    file.write_text(f"{known}classes: [E, tie]\nlabel: {{column: y, also: {also}}}\n")
    with pytest.raises(PodiumError, match=words):
        load_competition(str(file))
    file.write_text(f"{known}classes: auto\nlabel: {{column: y, also: {{bad: worse, worse: tie}}}}\n")
    with pytest.raises(PodiumError, match=r"label.also.bad: expected a value"):
        load_competition(str(file))
    file.write_text(f"{known}classes: [E, tie]\nlabel: {{one_hot: [a, b], also: {{c: E}}}}\n")
    with pytest.raises(PodiumError, match=r"label.also: classes and choice have it, not one_hot"):
        load_competition(str(file))


CHOSEN = Competition(
    name="chosen",
    task="preference",
    metric="accuracy",
    id="id",
    texts={"prompt": "prompt", "a": "chosen", "b": "rejected"},
    classes=("first", "second"),
    label=Label(winner="a"),
    answers={"better": "label"},
    renamed={"left": "chosen", "right": "rejected"},
)


@pytest.mark.parametrize("winner", ["a", "b"])
def test_the_better_side_may_stand_in_one_column(winner: str, tmp_path: Path) -> None:
    competition = replace(CHOSEN, label=Label(winner=winner))
    write(tmp_path / "train.csv", [["id", "prompt", "chosen", "rejected"], *([n, "p", "x", "y"] for n in range(4))])
    write(tmp_path / "test.csv", [["id", "prompt", "left", "right"], ["t", "q", "u", "v"]])
    write(tmp_path / "sample_submission.csv", [["id", "better"], ["t", "first"]])
    train, test, facts = prepared(tmp_path, competition)
    label = SIDES.index(winner)
    assert train.select("label", "a", "b").rows() == [(label, ["x"], ["y"]), (1 - label, ["y"], ["x"])] * 2
    assert test.row(0) == ("t", ["q"], ["u"], ["v"])
    assert competition_from_json(facts["competition"]) == competition
    make_rows(tmp_path, made := tmp_path / "made", 4, competition)
    assert read_test(made / "test.csv", competition, strict=True)["a"].to_list() == [["x"]] * 4
    shutil.rmtree(tmp_path / "out")
    texts = {"prompt": "prompt", "a": "choosen", "b": "rejected"}
    assert 'missing column "choosen" (did you mean "chosen"?)' in fault(tmp_path, replace(competition, texts=texts))


def test_only_a_preference_has_a_winner(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: x\ntask: pair\nmetric: log_loss\nid: id\ntexts: {a: t, b: u}\nclasses: [E, F]\nlabel: {winner: a}\n"
    )
    with pytest.raises(PodiumError, match=r"label: outcome classes: give column or .*, found winner$"):
        load_competition(str(file))


def test_made_rows_keep_their_lists(tmp_path: Path) -> None:
    competition = replace(CHOICES, parts={"ends": ("first", "second", "third"), "question.stem": ("stem",)})
    for name, ends in (("train", ["so, what", "z"]), ("test", ["1", "2"])):
        row = {"id": name, "question": question("why"), "ends": ends, "answer": "A"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    write(tmp_path / "sample_submission.csv", [["id", "answer"], ["test", "A"]])
    make_rows(tmp_path, made := tmp_path / "made", 2, competition)
    rows = read_test(made / "test.jsonl", replace(competition, ignored=("*",)), strict=True)
    assert rows.select("A", "stem").rows() == [(["so, what"], ["why"])] * 2


def test_a_json_file_may_have_a_record_per_line(tmp_path: Path) -> None:
    competition = replace(CHOICES, train="train.json", test="test.json")
    source = questions(tmp_path, "x", "y")
    for part in ("train", "test"):
        (source / f"{part}.jsonl").rename(source / f"{part}.json")
    with (source / "test.json").open("a") as stream:
        stream.write("\n" + json.dumps({"id": "u", "question": question("two\u2028lines", "1")}, ensure_ascii=False))
    write(source / "sample_submission.csv", [["id", "answer"], ["t", "A"], ["u", "A"]])
    train, test, _ = prepared(source, competition)
    assert (train["id"].to_list(), test["id"].to_list()) == (["a", "b"], ["t", "u"])
    shutil.rmtree(source / "out")
    with (source / "test.json").open("a") as stream:
        stream.write("\n{broken")
    assert ": line 4: expected JSON, found" in fault(source, competition)
    assert len(read_test(source / "test.json", competition, strict=False)) == 3


def test_categories_part_no_rows(tmp_path: Path) -> None:
    texts = {"kind": "kind", "title": "title", "text": "text"}
    long = [f"a title that tells a lot, {place // 2}" for place in range(6)]
    write(tmp_path / "train.csv", [["id", *texts, "author"], *([n, "k", long[n], "x", "EAP"] for n in range(6))])
    write(tmp_path / "test.csv", [["id", *texts], ["t", "k", "", ""]])
    write(tmp_path / "sample_submission.csv", [["id", *SINGLE.classes], ["t", 0.3, 0.3, 0.4]])

    def grouped(**changed: object) -> str:
        return prepared(tmp_path, replace(SINGLE, **{"texts": texts} | changed))[2]["competition"]["grouped"]

    assert grouped() == "title"
    assert grouped(group=("kind",)) == ""
    assert grouped(texts={"title": "title"}, ignored=("*",)) == ""
    assert grouped(texts={"title": "title", "kind": "kind"}, ignored=("*",)) == ""
    assert grouped(texts={"kind": "kind", "text": "text"}, ignored=("*",)) == ""  # both short: the first


def test_a_sample_with_tabs_is_answered_with_commas(tmp_path: Path) -> None:
    competition = replace(SINGLE, separator="\t")
    write(sample := tmp_path / "sample.tsv", [["id", *SINGLE.classes], ["t", 0.3, 0.3, 0.4]], delimiter="\t")
    write(mine := tmp_path / "submission.csv", [["id", *SINGLE.classes], ["t", 0.5, 0.25, 0.25]])
    assert validate_submission(mine, sample, competition) == 1
