from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import ROOT, probabilities

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import AUTO, Competition, Label, competition_from_json
from pipeline.errors import PodiumError

NAMES = [file.stem for file in (ROOT / "pipeline" / "competitions").glob("*.yaml")]


@pytest.mark.parametrize(
    ("shipped", "metric", "expected"),
    [
        ("jigsaw-toxic", "roc_auc", "roc_auc: expected one label column, found 6"),
        ("jigsaw-toxic", "pr_auc", "pr_auc: expected one label column, found 6"),
        ("spooky", "f1", "f1: expected two classes, found class 2"),
        ("spooky", "pr_auc", "pr_auc: expected two classes, found 3"),
    ],
)
def test_a_metric_for_fewer_columns_or_classes_is_refused_at_once(
    shipped: str, metric: str, expected: str, tmp_path: Path
) -> None:
    sound = yaml.safe_load((ROOT / "pipeline" / "competitions" / f"{shipped}.yaml").read_text())
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(sound | {"metric": metric}))
    with pytest.raises(PodiumError) as caught:
        load_competition(str(file))
    assert str(caught.value).startswith(f"{file}: {expected}")


@pytest.mark.parametrize("name", NAMES)
def test_every_competition_loads_and_survives_json(name: str) -> None:
    competition = load_competition(name)
    assert competition_from_json(json.loads(json.dumps(asdict(competition)))) == competition


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PodiumError, match=r'no competition "lmsy" \(did you mean "lmsys"\?\), known are'):
        load_competition("lmsy")


LMSYS = yaml.safe_load((ROOT / "pipeline" / "competitions" / "lmsys.yaml").read_text())
ESSAYS = {"name": "x", "task": "text", "metric": "log_loss", "id": "id", "texts": {"text": "body"}}
CLASSES = {**ESSAYS, "classes": ["p", "q", "r"], "label": {"column": "who"}}
LABELS = {**ESSAYS, "outcome": "labels", "label": {"columns": ["p", "q"]}}
TAGS = {
    **LABELS,
    "metric": "samples_f1",
    "classes": ["p", "q"],
    "label": {"listed": "tags"},
    "answers": {"tags": "labels"},
}
NUMBER = {**ESSAYS, "metric": "rmse", "outcome": "numbers", "label": {"columns": "n"}}
SCORES = {**ESSAYS, "metric": "qwk", "outcome": "ordered", "label": {"column": "score", "low": 1, "high": 4}}
QUIZ = {
    **{"name": "x", "task": "choices", "metric": "map@3", "id": "id", "texts": {"ask": "ask", "A": "A", "B": "B"}},
    **{"options": ["A", "B"], "label": {"column": "right"}, "answers": {"right": "top 2"}},
}
PAIR = {**NUMBER, "task": "pair", "texts": {"a": "s1", "b": "s2"}}


@pytest.mark.parametrize(
    ("sound", "change", "expected"),
    [
        (LMSYS, {"text": {}}, 'unknown key "text" (did you mean "texts"?)'),
        (LMSYS, {"metric": "logloss"}, 'found "logloss" (did you mean "log_loss"?)'),
        (LMSYS, {"texts": {"prompt": "p"}}, "texts: a preference needs the fields prompt, a, b, found prompt"),
        (LMSYS, {"classes": ["x", "x"]}, "classes: expected at least two different names"),
        (LMSYS, {"classes": list("wxyz")}, "classes: a preference task has 2 or 3"),
        (LMSYS, {"outcome": "numbers"}, "outcome: a preference has classes"),
        (LMSYS, {"task": "rating"}, "task: input should be 'text', 'pair', 'preference' or 'choices', found"),
        (LMSYS, {"submission": "notebook"}, "submission: input should be 'code' or 'file', found \"notebook\""),
        (LMSYS, {"hidden_rows": 0}, "hidden_rows: expected a positive number, found 0"),
        (LMSYS, {"medals": {"golden": 1.0}}, 'medals: expected gold, silver, bronze, found "golden"'),
        (LMSYS, {"label": {}}, "label: outcome classes: give column or one_hot or joined"),
        (LMSYS, {"label": {"one_hot": ["x"]}}, "label: 1 entries for 3 classes"),
        (LMSYS, {"label": {"colum": "x"}}, 'unknown key "label.colum" (did you mean "column"?)'),
        (
            CLASSES,
            {"label": {"columns": "x"}},
            "label: outcome classes: give column or one_hot or joined, found columns",
        ),
        (
            CLASSES,
            {"classes": "auto", "label": {"one_hot": ["x", "y"]}},
            "classes: auto reads the values of one column",
        ),
        (
            CLASSES,
            {"answers": {"who": "top 4"}},
            'answers.who: expected "top k" of 3 classes or options, found "top 4"',
        ),
        (CLASSES, {"answers": {"who": "lable"}}, 'found "lable" (did you mean "label"?)'),
        (CLASSES, {"answers": {"who": "mean"}}, "answers.who: which mean? Name one of p, q, r"),
        (CLASSES, {"centre": [1.0]}, "centre, spread, grouped: prepare fills them in; leave them out"),
        (CLASSES, {"candidates": "txt"}, 'candidates: no field "txt" in texts (did you mean "text"?)'),
        (LABELS, {"candidates": "text"}, "candidates: only outcome classes has them, and no pair that may be swapped"),
        (LMSYS, {"candidates": "prompt"}, "found outcome classes with task preference"),
        (
            LABELS,
            {"classes": ["p", "q"]},
            "classes: only outcome classes and label.listed have them, found outcome labels",
        ),
        (LABELS, {"label": {"columns": []}}, "label.columns: expected a column of train.csv, found none"),
        (LABELS, {"label": {"columns": ["p", "p"]}}, "label.columns.1: expected a column of its own"),
        (LABELS, {"metric": "qwk"}, "metric: qwk is for the outcomes ordered, found outcome labels"),
        (LABELS, {"label": {"columns": "p", "values": [0, 1]}}, "label.values: only classes and choice have them"),
        (NUMBER, {"answers": {"n": "label"}}, "answers.n: outcome numbers has no labels; write mean"),
        (NUMBER, {"options": ["text"]}, "options: only choices have options, found task text"),
        (NUMBER, {"symmetric": True}, "symmetric: only a pair may be, found task text"),
        (
            NUMBER,
            {"texts": {"text": "n"}},
            'label.columns.0: expected a column of its own, found "n", which is texts.text',
        ),
        (SCORES, {"label": {"column": "s", "low": 1}}, "label: expected low below high, found 1 and None"),
        (
            SCORES,
            {"label": {"column": "s", "low": 0, "high": 10**9}},
            "label: expected at most 1000 scores, found 100000",
        ),
        (SCORES, {"label": {"column": "s"}}, "label: low and high belong to outcome ordered, and it needs both"),
        (SCORES, {"answers": {"s": "mean"}}, "answers.s: metric qwk scores labels; write label, not mean"),
        (
            SCORES,
            {"label": {"column": "s", "low": 1, "high": 4, "log": True}},
            "label.log: only numbers have it, found",
        ),
        (LABELS, {"label": {"listed": "tags"}}, "classes: expected at least two different names"),
        (LABELS, {"label": {"listed": "tags", "columns": "p"}}, "label: outcome labels: give columns or listed, found"),
        (
            CLASSES,
            {"label": {"listed": "tags"}},
            "label: outcome classes: give column or one_hot or joined, found listed",
        ),
        (
            TAGS,
            {"label": {"listed": "body"}},
            'label.listed: expected a column of its own, found "body", which is texts',
        ),
        (TAGS, {"metric": "log_loss"}, "answers.tags: metric log_loss scores means; give a column for each label"),
        (TAGS, {"classes": ["p q", "r"]}, 'join: expected what parts the labels of tags, "p q" holds it'),
        (TAGS, {"answers": {"tags": "label"}}, "answers.tags: which label? Give one column for each of p, q"),
        (NUMBER, {"encoding": "utf-16"}, "encoding: input should be 'utf-8', 'latin-1' or 'cp1252', found \"utf-16\""),
        (NUMBER, {"train_id": "body"}, 'texts.text: expected a column of its own, found "body", which is train_id too'),
        (NUMBER, {"train_id": ""}, "train_id: expected the name of a column, found none"),
        (NUMBER, {"lookup": [{"key": "k"}]}, "lookup.0.train"),
        (
            NUMBER,
            {"lookup": [{"key": "k", "train": "../x.csv"}]},
            'lookup.0: expected a file of the data folder, found "',
        ),
        (
            NUMBER,
            {"lookup": [{"key": "k", "train": "{}.txt", "column": "x"}]},
            "lookup.0: expected text files in a folder",
        ),
        (
            NUMBER,
            {"lookup": [{"key": "k", "train": "a/{}.txt"}]},
            "lookup.0.column: text files ({} in their name) need",
        ),
        (
            NUMBER,
            {"lookup": [{"key": "k", "train": "a.csv", "column": "x"}]},
            "lookup.0.column: a table names its columns",
        ),
        (QUIZ, {"options": ["A"]}, "options: choices need at least two fields of texts, found ['A']"),
        (QUIZ, {"options": ["A", "C"]}, 'options: no field "C" in texts'),
        (QUIZ, {"options": ["ask", "A", "B"]}, "texts: choices need a field beside the options"),
        (QUIZ, {"outcome": "classes"}, "outcome: choice goes with task choices, found classes with task choices"),
        (QUIZ, {"label": {"column": "right", "values": [1]}}, "label: 1 entries for 2 options"),
        (PAIR, {"texts": {"a": "s1"}}, "texts: a pair needs the fields a, b, found a"),
        (PAIR, {"texts": {"a": "s1", "b": "s2", "group": "s3"}}, "texts: a field is named by letters"),
    ],
)
def test_an_inconsistent_file_is_refused(sound: dict, change: dict, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(sound))
    load_competition(str(file))
    file.write_text(yaml.safe_dump(sound | change))
    with pytest.raises(PodiumError) as caught:
        load_competition(str(file))
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        *(
            ({"classes": ["human", name]}, f'classes: no answer can be named "{name}"')
            for name in ("model", "label", "id")
        ),
        ({"classes": ["human", "row_id"]}, 'classes: no answer can be named "row_id"'),
        ({"classes": ["human", ""]}, 'classes: no answer can be named ""'),
        ({"texts": {"text": "row_id"}}, 'texts.text: expected a column of its own, found "row_id", which is id too'),
        (
            {"label": {"column": "row_id"}},
            'label.column: expected a column of its own, found "row_id", which is id too',
        ),
        (
            {"label": {"column": "text"}},
            'label.column: expected a column of its own, found "text", which is texts.text',
        ),
        ({"label": {"one_hot": ["human", "human"]}}, "label: expected different entries, found ['human', 'human']"),
        ({"label": {"column": "author", "values": ["x", "x"]}}, "label: expected different entries, found ['x', 'x']"),
        ({"name": "../../etc/x"}, 'name: expected Kaggle\'s slug (letters, digits, hyphens), found "../../etc/x"'),
        ({"name": "/etc"}, "name: expected Kaggle's slug"),
        ({"name": ".."}, "name: expected Kaggle's slug"),
        ({"name": ""}, "name: expected Kaggle's slug"),
        ({"train": "../train.csv"}, 'train: expected a file of the data folder, found "../train.csv"'),
        ({"test": "/etc/passwd"}, 'test: expected a file of the data folder, found "/etc/passwd"'),
        ({"sample_submission": ""}, "sample_submission: expected a file of the data folder"),
    ],
)
def test_a_name_that_is_ours_is_refused(change: dict, expected: str, tmp_path: Path) -> None:
    sound = {
        "name": "human-or-model",
        "task": "text",
        "metric": "log_loss",
        "id": "row_id",
        "texts": {"text": "text"},
        "classes": ["human", "both"],
        "label": {"column": "author"},
    }
    file = tmp_path / "mine.yaml"
    for classes in (["human", "both"], ["a/b", "fold"], ["text", "prompt"], ['"c"', "ü, <b>"]):
        file.write_text(yaml.safe_dump(sound | {"classes": classes}))
        assert load_competition(str(file)).classes == tuple(classes)
    file.write_text(yaml.safe_dump(sound | change))
    with pytest.raises(PodiumError) as caught:
        load_competition(str(file))
    assert str(caught.value).startswith(f"{file}: {expected}")
    assert "\n" not in str(caught.value)


def test_how_a_competition_is_submitted_to(lmsys: Competition, spooky: Competition) -> None:
    assert (lmsys.submission, spooky.submission) == ("code", "file")
    assert competition_from_json({**asdict(spooky), "submission": "code"}).submission == "code"


def test_what_may_be_written_shortly(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**CLASSES, "classes": [0, 1.5, True], "group": "page", "ignored": "*"}))
    found = load_competition(str(file))
    assert found.classes == ("0", "1.5", "True")
    assert (found.group, found.ignored, found.kind.group) == (("page",), ("*",), None)
    file.write_text(yaml.safe_dump({**CLASSES, "classes": [0, 1], "answers": {"p": 1}}))
    assert load_competition(str(file)).answers == {"p": "1"}
    file.write_text(yaml.safe_dump(TAGS))
    assert load_competition(str(file)).label.join == " "
    file.write_text(yaml.safe_dump(QUIZ))
    assert (found := load_competition(str(file))).outcome == "choice"
    assert found.label_values == ("A", "B")
    file.write_text(yaml.safe_dump({**CLASSES, "classes": "auto", "answers": {"x": "top 3"}}))
    assert load_competition(str(file)).classes == AUTO
    file.write_text(yaml.safe_dump(PAIR | {"symmetric": True}))
    assert (found := load_competition(str(file))).kind.group is None
    assert found.kind.mirror == (0,)


def test_swapping_the_sides_twice_changes_nothing(lmsys: Competition, spooky: Competition) -> None:
    each = probabilities(np.zeros(5, dtype=int), 3, 1.0, 0)
    assert np.array_equal(lmsys.mirrored(lmsys.mirrored(each)), each)
    assert np.array_equal(lmsys.mirrored(each)[:, 0], each[:, 1])
    assert np.array_equal(spooky.mirrored(each), each)


def test_the_page_describes_every_key_and_shows_every_file() -> None:
    page = (ROOT / "docs" / "competition.md").read_text(encoding="utf-8")
    keys = {field.name for field in fields(Competition)} - {"label", "centre", "spread", "grouped"}
    for key in [*keys, *(f"label.{field.name}" for field in fields(Label))]:
        assert f"`{key}`" in page, key
    for name in NAMES:
        assert f"[{name}](../pipeline/competitions/{name}.yaml)" in page, name
