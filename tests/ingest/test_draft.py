"""make new-competition: a YAML file that loads and runs prepare, guessed from the files alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from competition_files import preference, prepared, twin, write, write_table
from support import ROOT, error_line, run_module

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import AUTO, Competition, Lookup
from pipeline.errors import PodiumError
from pipeline.ingest.draft import write_draft

NAMES = sorted(file.stem for file in (ROOT / "pipeline" / "competitions").glob("*.yaml"))


def drafted(folder: Path, train: dict[str, list[str]], test: list[str], sample: dict[str, list[str]]) -> Competition:
    """The competition that is guessed from these columns, after `prepare` has taken it."""
    folder.mkdir(exist_ok=True)
    rows = len(next(iter(train.values())))
    write_table(folder / "train.csv", {"id": [f"r{row}" for row in range(rows)]} | train)
    write_table(folder / "test.csv", {"id": [f"t{row}" for row in range(rows)]} | {name: train[name] for name in test})
    asked = {name: (cells * rows)[:rows] for name, cells in sample.items()}
    write_table(folder / "sample_submission.csv", {"id": [f"t{row}" for row in range(rows)]} | asked)
    competition = load_competition(str(write_draft(folder)))
    prepared(folder, competition)
    return competition


@pytest.mark.parametrize("name", NAMES)
def test_a_draft_is_prepared_and_has_the_shape_of_the_shipped_file(name: str, tmp_path: Path) -> None:
    shipped = load_competition(name)
    source = twin(tmp_path / "data", shipped, rows=120)
    found = load_competition(str(write_draft(source)))
    prepared(source, found)
    same = (
        "id",
        "train_id",
        "turns",
        "separator",
        "quotes",
        "encoding",
        "lookup",
        "train",
        "test",
        "sample_submission",
    )
    assert [getattr(found, key) for key in same] == [getattr(shipped, key) for key in same]
    assert found.task == (shipped.task if name != "us-patent" else "text")  # its two sides do not look like sides
    assert set(found.texts.values()) == set(shipped.texts.values())
    if name not in ("sst", "quora", "google-quest"):  # numbers 0 to 4, 0 and 1: taken for scores and a label
        assert found.outcome == shipped.outcome
        assert found.label.column == shipped.label.column
        assert found.label.columns == shipped.label.columns
        assert (found.classes, found.options) == (shipped.classes, shipped.options)


TEXTS = [f"{word} {place} words that differ from row to row" for place, word in enumerate(["one", "two", "three"] * 8)]


@pytest.mark.parametrize(
    ("answers", "sample", "expected"),
    [
        ({"y": ["0", "1"]}, {"y": ["0.5"]}, ("labels", "roc_auc", {})),
        ({"y": ["0", "1"]}, {"y": ["0"]}, ("labels", "f1", {"y": "label"})),
        ({"y": ["True", "False"]}, {"p": ["0.5"]}, ("labels", "roc_auc", {"p": "mean"})),
        ({"label": ["0", "1"]}, {"label": ["0.5"]}, ("labels", "roc_auc", {})),
        ({"y": ["True", "False"]}, {"y": ["true"]}, ("classes", "accuracy", {"y": "label"})),
        ({"y": ["0", "0.25", "0.5"]}, {"y": ["0"]}, ("labels", "rmse", {})),
        ({"y": ["0.5", "7", "-1e3"]}, {"y": ["0"]}, ("numbers", "rmse", {})),
        ({"y": ["1", "2", "3"]}, {"score": ["2"]}, ("ordered", "qwk", {"score": "label"})),
        ({"class": ["0", "1", "2"]}, {"y": ["2"]}, ("classes", "accuracy", {"y": "label"})),
        ({"grade_class": ["0", "1", "2"]}, {"y": ["2"]}, ("ordered", "qwk", {"y": "label"})),
        ({"Sentiment": ["0", "4", "2"]}, {"Sentiment": ["2"]}, ("classes", "accuracy", {"Sentiment": "label"})),
        ({"relevance": ["1", "2.33", "2"]}, {"relevance": ["1"]}, ("numbers", "rmse", {})),
        ({"y": ["cat", "dog"]}, {"y": ["cat"]}, ("classes", "accuracy", {"y": "label"})),
        ({"y": ["cat", "dog"]}, {"best": ["dog cat"]}, ("classes", "map@2", {"best": "top 2"})),
        ({"y": ["cat", "dog"]}, {"cat": ["0.5"], "dog": ["0.5"]}, ("classes", "log_loss", {})),
        ({"y": ["1", "2"]}, {"p_1": ["0.5"], "p_2": ["0.5"]}, ("classes", "log_loss", {})),
        ({"p": ["1", "0"], "q": ["0", "1"]}, {"p": ["0.5"], "q": ["0.5"]}, ("classes", "log_loss", {})),
        ({"p": ["1", "0"], "q": ["0", "0"]}, {"p": ["0.5"], "q": ["0.5"]}, ("labels", "mean_auc", {})),
        ({"p": ["0.3", "0"], "q": ["0", ""]}, {"p": ["0.5"], "q": ["0.5"]}, ("labels", "log_loss", {})),
        ({"p": ["3", "0"], "q": ["0", "5"]}, {"p": ["0.5"], "q": ["0.5"]}, ("numbers", "mcrmse", {})),
        ({"y": [f"kind {n}" for n in range(40)]}, {"y": ["kind 1"]}, ("classes", "accuracy", {"y": "label"})),
    ],
)
def test_the_outcome_is_guessed(
    answers: dict[str, list[str]], sample: dict[str, list[str]], expected: tuple, tmp_path: Path
) -> None:
    rows = max(24, *map(len, answers.values()))
    train = {"body": (TEXTS * 2)[:rows]} | {name: (cells * rows)[:rows] for name, cells in answers.items()}
    found = drafted(tmp_path, train, ["body"], sample)
    assert (found.outcome, found.metric, found.answers) == expected
    assert (found.classes == AUTO) == (len(answers.get("y", [])) > 30)


def test_a_sample_of_one_value_tells_no_metric(tmp_path: Path) -> None:
    train = {"body": TEXTS, "y": ["1", "0"] * 12}
    assert drafted(tmp_path / "a", train, ["body"], {"y": ["0"]}).metric == "f1"
    text = (tmp_path / "a" / "competition.yaml").read_text(encoding="utf-8")
    assert "CHECK: the sample has one value alone" in text
    assert "answers: {y: label}   # for roc_auc or log_loss {y: mean}" in text
    drafted(tmp_path / "b", train, ["body"], {"y": ["0", "1"]})
    assert "CHECK" not in (tmp_path / "b" / "competition.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("join", [" ", ",", "|"])
def test_a_column_may_list_labels(join: str, tmp_path: Path) -> None:
    lists = [
        join.join(("ab", "cd", "ef", "gh")[place] for place in range(4) if row >> place & 1) for row in range(1, 16)
    ]
    train = {"body": TEXTS * 5, "tags": lists * 8}
    found = drafted(tmp_path, train, ["body"], {"tags": [join.join(["ef", "ab"])]})
    assert (found.outcome, found.metric, found.answers) == ("labels", "samples_f1", {"tags": "labels"})
    assert (found.label.listed, found.label.join, found.join) == ("tags", join, join)


def test_uneven_numbers_may_be_amounts(tmp_path: Path) -> None:
    for name, largest in (("even", "9.5"), ("uneven", "99.5")):
        drafted(tmp_path / name, {"body": TEXTS, "price": ["3.5", "4.5", largest] * 8}, ["body"], {"price": ["0"]})
        text = (tmp_path / name / "competition.yaml").read_text(encoding="utf-8")
        assert ("for rmsle write label: {columns: [price], log: true}" in text) == (name == "uneven")


def test_how_sure_the_raters_were_is_not_the_answer(tmp_path: Path) -> None:
    train = {"body": TEXTS, "relevance_variance": ["0.5", "0"] * 12, "median_relevance": ["1", "2", "4"] * 8}
    assert drafted(tmp_path, train, ["body"], {"prediction": ["1"]}).label.column == "median_relevance"


def folder_of(folder: Path, train: dict, test: dict, sample: dict, **files: dict) -> Path:
    """A folder with these tables; a name with two underscores has its dot there: pages__csv."""
    folder.mkdir(exist_ok=True)
    given = {"train__csv": train, "test__csv": test, "sample_submission__csv": sample} | files
    for name, columns in given.items():
        if columns:
            write_table(folder / name.replace("__", "."), columns)
    return folder


IDS, ASKED = [f"r{row}" for row in range(24)], [f"t{row}" for row in range(24)]
TRAIN = {"id": IDS, "body": TEXTS, "page": list("abcdef") * 4, "y": ["1.5", "0.2", "7"] * 8}
TEST = {"id": ASKED, "body": TEXTS, "page": ["x", "y"] * 12}
SAMPLE = {"id": ASKED, "y": ["0.5"] * 24}
PAGES = {
    "page": list("abcdefgh"),
    "text_of_page": [f"a long text that stands on page {key} alone, and so on" for key in "abcdefgh"],
}


def test_what_stands_in_other_files_is_found(tmp_path: Path) -> None:
    other = {name: [cell.upper() for cell in cells] for name, cells in PAGES.items()} | {"page": list("xyzuvwqr")}
    source = folder_of(tmp_path / "a", TRAIN, TEST, SAMPLE, pages_train__csv=PAGES, pages_test__csv=other)
    found = load_competition(str(write_draft(source)))
    assert found.lookup == (Lookup("page", "pages_train.csv", "pages_test.csv"),)
    assert found.train == "train.csv"  # though the other's name is as good
    assert found.texts == {"body": "body", "text_of_page": "text_of_page"}
    train, _, _ = prepared(source, found)
    assert train["text_of_page"].to_list()[1] == [PAGES["text_of_page"][1]]

    both = {name: [*PAGES[name], *other[name]] for name in PAGES}
    source = folder_of(tmp_path / "b", TRAIN, TEST, SAMPLE, pages__csv=both)
    assert load_competition(str(write_draft(source))).lookup == (Lookup("page", "pages.csv"),)
    both |= {"page": [*PAGES["page"], *"xyxyxyxy"]}  # several rows per key: of no use
    source = folder_of(tmp_path / "c", TRAIN, TEST, SAMPLE, pages__csv=both)
    assert load_competition(str(write_draft(source))).lookup == ()

    long = {"body": [text + 300 * "x" for text in TEXTS]}
    source = folder_of(tmp_path / "d", TRAIN | long, TEST | long, SAMPLE)
    (source / "unreadable.csv").write_text("a,a\n1,2\n")
    (source / "empty.csv").touch()
    for part, keys in (("train", "abcdef"), ("test", "xy")):
        (source / part).mkdir()
        for key in keys:
            (source / part / f"{key}.txt").write_text(f"what stands in {key}, a text of some length or other")
    found = load_competition(str(write_draft(source)))
    assert found.lookup == (Lookup("page", "train/{}.txt", "test/{}.txt", "page_text"),)
    assert prepared(source, found)[1]["page_text"].to_list()[0] == ["what stands in x, a text of some length or other"]


def test_the_training_file_is_the_one_with_the_answers(tmp_path: Path) -> None:
    unlabelled = {name: cells for name, cells in TRAIN.items() if name != "y"}
    files = {"labelled_train__csv": TRAIN, "un_train__csv": unlabelled}
    source = folder_of(tmp_path, {}, TEST, SAMPLE, **files)
    assert load_competition(str(write_draft(source))).train == "labelled_train.csv"


def test_rows_of_which_the_test_file_has_no_relative_stay_together(tmp_path: Path) -> None:
    pages = {"page_id": list("abcdef") * 4}
    train = {name: cells for name, cells in TRAIN.items() if name != "page"} | pages
    test = {"id": ASKED[:2], "body": TEXTS[:2], "page_id": ["x", "y"]}
    found = load_competition(str(write_draft(folder_of(tmp_path / "a", train, test, SAMPLE))))
    assert (found.group, found.ignored) == (("page_id",), ())
    pair = {"question1": TEXTS, "question2": TEXTS[::-1]}
    source = folder_of(
        tmp_path / "pair", train | pair, test | {name: cells[:2] for name, cells in pair.items()}, SAMPLE
    )
    assert load_competition(str(write_draft(source))).group == ()  # else rows that share a text would be parted
    test |= {"page_id": ["x", "a"]}
    found = load_competition(str(write_draft(folder_of(tmp_path / "b", train, test, SAMPLE))))
    assert (found.group, found.ignored) == ((), ("page_id",))


@pytest.mark.parametrize(
    ("column", "expected"), [({"pair_id": IDS}, "pair_id"), ({"pair_id": ["1"] * 24}, "#"), ({}, "#")]
)
def test_the_training_rows_may_have_another_id(column: dict, expected: str, tmp_path: Path) -> None:
    train = column | {name: cells for name, cells in TRAIN.items() if name != "id"}
    source = folder_of(tmp_path, train, TEST, SAMPLE)
    found = load_competition(str(write_draft(source)))
    assert (found.id, found.train_id) == ("id", expected)
    prepared(source, found)


def test_the_submission_may_name_the_id_otherwise(tmp_path: Path) -> None:
    source = folder_of(tmp_path, TRAIN, TEST, {"Id": ASKED[::-1], "y": ["0.5"] * 24})
    found = load_competition(str(write_draft(source)))
    assert (found.id, found.submission_id, found.train_id) == ("id", "Id", None)
    prepared(source, found)


def test_encoding_and_quotes_are_found(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "a", TRAIN | {"body": ["45° " + text for text in TEXTS]}, TEST, SAMPLE)
    (source / "train.csv").write_bytes((source / "train.csv").read_text(encoding="utf-8").encode("latin-1"))
    found = load_competition(str(write_draft(source)))
    assert found.encoding == "latin-1"
    assert prepared(source, found)[0]["body"][0].to_list() == ["45° " + TEXTS[0]]
    for way, first in (("backslash", r'"a \"new\" day"'), ("none", '"a new day')):
        source = folder_of(tmp_path / way, TRAIN, TEST, SAMPLE)
        lines = (source / "train.csv").read_text(encoding="utf-8").replace(TEXTS[0], first, 1)
        (source / "train.csv").write_text(lines, encoding="utf-8")
        found = load_competition(str(write_draft(source)))
        assert found.quotes == way
        assert prepared(source, found)[0]["body"][0].to_list() == [
            {"backslash": 'a "new" day', "none": '"a new day'}[way]
        ]


def test_one_list_per_row_is_a_text_and_no_conversation(tmp_path: Path) -> None:
    records = [{"id": each, "things": [text, "salt"], "y": "0.5"} for each, text in zip(IDS, TEXTS, strict=True)]
    source = folder_of(tmp_path, {}, {}, SAMPLE)
    for part in ("train", "test"):
        (source / f"{part}.json").write_text(json.dumps(records).replace('"y"', '"y"' if part == "train" else '"id"'))
    text = [{"id": each, "things": [text, "salt"]} for each, text in zip(ASKED, TEXTS, strict=True)]
    (source / "test.json").write_text(json.dumps(text))
    (source / "train.json").write_text(json.dumps([each | {"y": str(n / 7)} for n, each in enumerate(records)]))
    found = load_competition(str(write_draft(source)))
    assert (found.turns, found.texts) == ("plain", {"things": "things"})
    assert prepared(source, found)[0]["things"][0].to_list() == [f"{TEXTS[0]}, salt"]


def test_what_parts_the_rows_is_a_comment(tmp_path: Path) -> None:
    days = [f"2024-01-{1 + place:02d}" for place in range(24)]
    train = {"body": TEXTS, "url": ["a", "b"] * 12, "day": days, "y": ["1", "0"] * 12}
    found = drafted(tmp_path, train, ["body"], {"y": ["0.5"]})
    text = (tmp_path / "competition.yaml").read_text(encoding="utf-8")
    assert "# group: [...]   # rows that must not be parted; values repeat in url (2 values) of 24 rows" in text
    assert "# time: day" in text
    assert found.ignored == ("url", "day")
    assert (found.group, found.time) == ((), None)


def test_columns_of_the_sample_are_named_like_the_values(tmp_path: Path) -> None:
    train = {"body": TEXTS, "winner": ["model_b", "model_a", "tie", "tie (both)"] * 6}
    sample = {name: ["0.3"] for name in ("winner_model_a", "winner_model_b", "winner_Tie")}
    label = drafted(tmp_path / "a", train, ["body"], sample).label
    assert (label.values, label.also) == (("model_a", "model_b", "tie"), {"tie (both)": "tie"})


def test_a_test_file_may_have_the_labels_too(tmp_path: Path) -> None:
    found = drafted(tmp_path, {"body": TEXTS, "y": ["0", "1"] * 12}, ["body", "y"], {"y": ["0.5"]})
    assert (found.texts, found.label.columns, found.ignored) == ({"body": "body"}, ("y",), ("y",))


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    found = drafted(tmp_path, {"body": TEXTS, "y": ["cat", "-", "dog"] * 8}, ["body"], {"y": ["cat"]})
    assert (found.classes, found.left_out) == (("cat", "dog"), {"y": ("-",)})
    train = {"body": TEXTS, "mark": ["*", ""] * 12, "acceptable": ["+", "-"] * 12}
    found = drafted(tmp_path / "signs", train, ["body"], {"Label": ["+"]})  # a mark that is one or nothing is no answer
    assert (found.label.column, found.classes, found.left_out) == ("acceptable", ("+", "-"), {})


def test_dates_and_the_first_of_several_parts_are_no_text_of_a_pair(tmp_path: Path) -> None:
    train = {f"essay_{place}": [f"{text} {place}" for text in TEXTS] for place in (1, 2, 3)}
    train |= {"asked": [f"07/{1 + place:02d}/2012 23:03:46" for place in range(24)]}
    train |= {"told": [f"2012-07-{1 + place:02d} 23:03:46" for place in range(24)], "y": ["0", "1"] * 12}
    found = drafted(tmp_path, train, [name for name in train if name != "y"], {"y": ["0.5"]})
    assert (found.task, list(found.texts)) == ("text", ["essay_1", "essay_2", "essay_3"])


def test_a_row_of_columns_with_as_many_answers_holds_options(tmp_path: Path) -> None:
    train = {"body": TEXTS, "y": ["0", "1", "2"] * 8} | {f"op{letter}": TEXTS for letter in "abc"}
    found = drafted(tmp_path / "a", train, ["body", "opa", "opb", "opc"], {"y": ["0"]})
    assert (found.options, found.label.values) == (("opa", "opb", "opc"), ("0", "1", "2"))
    found = drafted(tmp_path / "b", train | {"y": ["0", "1"] * 12}, ["body", "opa", "opb", "opc"], {"y": ["0.5"]})
    assert (found.task, found.options) == ("text", ())  # three texts, and yes or no
    found = drafted(tmp_path / "c", train | {"y": ["x", "y", "z"] * 8}, ["body", "opa", "opb", "opc"], {"y": ["x"]})
    assert found.options == ()  # three classes, such as kinds of questions with three tags


@pytest.mark.parametrize("key", ["", ".text"])
def test_options_in_one_cell_are_taken_apart(key: str, tmp_path: Path) -> None:
    source = folder_of(tmp_path, {}, {}, {"id": ASKED, "y": ["0"] * 24})
    lists = [[f"{text}, up", f"{text}, down", "a third"] for text in TEXTS]
    for part, ids in (("train", IDS), ("test", ASKED)):
        given = [{"label": list("ABC"), "text": ends} if key else ends for ends in lists]
        rows = [{"id": each, "body": text, "ends": ends} for each, text, ends in zip(ids, TEXTS, given, strict=True)]
        rows = [row | {"y": place % 3} for place, row in enumerate(rows)] if part == "train" else rows
        (source / f"{part}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_competition(str(write_draft(source)))
    assert (found.task, found.options, found.parts) == ("choices", ("A", "B", "C"), {f"ends{key}": ("A", "B", "C")})
    assert found.label.values == ("0", "1", "2")
    assert prepared(source, found)[0]["B"][0].to_list() == [f"{TEXTS[0]}, down"]


def test_files_of_other_names_and_in_folders_are_found(tmp_path: Path) -> None:
    unlabelled = {("" if name == "id" else name): cells for name, cells in TRAIN.items() if name != "y"}
    test = {("" if name == "id" else name): cells for name, cells in TEST.items()}
    source = tmp_path / "a"
    files = {"x_train__csv": unlabelled, "y_train__csv": {"": IDS, "y": TRAIN["y"]}, "x_valid__csv": test}
    folder_of(source, {}, {}, {}, submission_format__csv={"row": ASKED, "y": ["0.5"] * 24}, **files)
    found = load_competition(str(write_draft(source)))
    assert (found.id, found.submission_id, found.train) == ("", "row", "x_train.csv")
    assert found.lookup == (Lookup("", "y_train.csv", only="train"),)
    prepared(source, found)
    source = folder_of(tmp_path / "b", TRAIN, TEST, SAMPLE)
    for name in ("train", "test"):
        (source / name).mkdir()
        (source / f"{name}.csv").rename(source / name / f"{name}.csv")
    (source / "sample_submission.csv").rename(source / "test" / "sample_submission.csv")
    found = load_competition(str(write_draft(source)))
    assert (found.train, found.sample_submission) == ("train/train.csv", "test/sample_submission.csv")
    prepared(source, found)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="no such folder"):
        write_draft(tmp_path / "nowhere")
    with pytest.raises(PodiumError, match=r"expected a table with sample and submission in its name .* found nothing"):
        write_draft(tmp_path)
    source = preference(tmp_path / "data")
    (source / "train.csv").rename(source / "train.csv.zip")
    with pytest.raises(PodiumError, match=r"with train in its name .*; unpack train.csv.zip"):
        write_draft(source)
    (source / "train.csv.zip").unlink()
    (source / "train.csv").write_bytes((source / "test.csv").read_bytes())
    with pytest.raises(PodiumError, match=r"train.csv: expected a column that test.csv lacks: the answer"):
        write_draft(source)


def drawn_up(folder: Path, train: list, test: list, sample: list) -> str:
    """The line that a draft of these files is refused with."""
    for name, rows in (("train.csv", train), ("test.csv", test), ("sample_submission.csv", sample)):
        write(folder / name, rows)
    with pytest.raises(PodiumError) as caught:
        write_draft(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", ["2024", "null", "1e5", "a b", "данные"])
def test_a_folder_and_a_column_may_have_any_name(name: str, tmp_path: Path) -> None:
    texts = [f"some words of row {row}" for row in range(24)]
    rows = {name: texts, "author": ["x", "y"] * 12}
    found = drafted(tmp_path / name, rows, [name], {"x": ["0.5"], "y": ["0.5"]})
    assert list(found.texts.values()) == [name]


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_what_is_no_file_is_no_table(what: str, tmp_path: Path) -> None:
    source = preference(tmp_path / "data")
    (source / "train.csv").unlink()
    make = {"folder": Path.mkdir, "link": lambda file: file.symlink_to("nothing"), "pipe": os.mkfifo}[what]
    make(source / "train.csv")
    with pytest.raises(PodiumError, match="expected a table with train in its name"):
        write_draft(source)


def test_files_of_which_nothing_can_be_guessed_are_one_line(tmp_path: Path) -> None:
    text = [["id", "text"], ["1", "some words"]]
    assert "sample_submission.csv: expected a column beside the id" in drawn_up(
        tmp_path, [["id", "text", "label"], ["1", "words", "x"]], text, [["id"], ["1"]]
    )
    train = [["id", "text", "q"], ["1", "words", "2"]]
    assert 'test.csv: expected a column with the ids of sample_submission.csv, column "row" (0, ...), found none' in (
        drawn_up(tmp_path, train, text, [["row", "q"], ["0", "2"]])
    )
    assert 'expected the texts of test.csv, found "id", "text", "q", and there "id", "body"' in drawn_up(
        tmp_path, train, [["id", "body"], ["1", "some words"]], [["id", "q"], ["1", "2"]]
    )


def test_what_to_write_of_chosen_and_rejected_is_told(tmp_path: Path) -> None:
    train = [["id", "prompt", "chosen", "rejected"], *([str(n), "why?", f"yes {n}", f"no {n}"] for n in range(9))]
    test = [["id", "prompt", "left", "right"], *([f"t{n}", "why?", f"this is {n}", f"that is {n}"] for n in range(9))]
    line = drawn_up(tmp_path, train, test, [["id", "best"], *([f"t{n}", "a"] for n in range(9))])
    assert (
        'the better side stands in one column, and test.csv has "id", "prompt", "left", "right": write task: preference'
        in line
    )


def test_answers_that_cannot_be_said_are_one_line(tmp_path: Path) -> None:
    spans = {name: TRAIN[name] for name in ("id", "body")} | {"selected": [text[3:] for text in TEXTS]}
    source = folder_of(tmp_path / "a", spans, TEST, {"id": ASKED, "selected": [""] * 24})
    with pytest.raises(
        PodiumError, match=r"train.csv: column selected: .* answers that are texts or spans cannot be said"
    ):
        write_draft(source)
    tokens = {"row": IDS, "id": ["t0", "t0", *ASKED[:22]], "token": ["1"] * 24}
    with pytest.raises(
        PodiumError, match=r'column id: .* found "t0" in several: several answers per row, such as spans'
    ):
        write_draft(folder_of(tmp_path / "b", TRAIN, TEST, tokens))
    with pytest.raises(
        PodiumError, match=r'column id: expected one row for each row of test.csv, found "r0", which is none'
    ):
        write_draft(folder_of(tmp_path / "c", TRAIN, TEST, {"id": IDS, "y": ["0"] * 24}))


def test_the_command_prints_the_file_and_keeps_an_edited_one(tmp_path: Path) -> None:
    source = preference(tmp_path / "data")
    done = run_module("stages.new_competition", str(source), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    target = source / "competition.yaml"
    assert done.stdout.startswith(target.read_text(encoding="utf-8"))
    assert done.stdout.rstrip().endswith(f"`make repro PRESET=cpu DATA={source}` uses it (PRESET=short for sentences)")
    target.write_text("mine")
    assert "is there already" in error_line(run_module("stages.new_competition", str(source), cwd=tmp_path))
    assert target.read_text() == "mine"
