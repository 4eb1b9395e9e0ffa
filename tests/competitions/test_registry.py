from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import log_loss
from support import ROOT, probabilities

from pipeline.competitions.metrics import METRICS, decisive_log_loss
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.errors import PodiumError

NAMES = [file.stem for file in (ROOT / "pipeline" / "competitions").glob("*.yaml")]


@pytest.mark.parametrize("name", NAMES)
def test_every_competition_loads_and_survives_json(name: str) -> None:
    competition = load_competition(name)
    assert competition_from_json(json.loads(json.dumps(asdict(competition)))) == competition


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(PodiumError, match=r'no competition "lmsy" \(did you mean "lmsys"\?\), known are'):
        load_competition("lmsy")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"text": {}}, 'unknown key "text" (did you mean "texts"?)'),
        (
            {"metric": "logloss"},
            'metric: expected one of log_loss, accuracy, found "logloss" (did you mean "log_loss"?)',
        ),
        ({"texts": {"prompt": "prompt"}}, "texts: a preference task needs exactly prompt, a, b, found prompt"),
        ({"classes": ["x", "x"]}, "classes: expected at least two different names"),
        ({"classes": ["x", "y"]}, "classes: a preference task has 3"),
        ({"submission": "notebook"}, "submission: input should be 'code' or 'file', found \"notebook\""),
        ({"hidden_rows": 0}, "hidden_rows: expected a positive number, found 0"),
        ({"label": {}}, "label: give either one_hot or column"),
        ({"label": {"one_hot": ["x"]}}, "label: 1 entries for 3 classes"),
        ({"label": {"colum": "x"}}, 'unknown key "label.colum" (did you mean "column"?)'),
    ],
)
def test_an_inconsistent_file_is_refused(change: dict, expected: str, tmp_path: Path) -> None:
    sound = yaml.safe_load((ROOT / "pipeline" / "competitions" / "lmsys.yaml").read_text())
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(sound | change))
    with pytest.raises(PodiumError) as caught:
        load_competition(str(file))
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        *(
            ({"classes": ["human", name]}, f'classes: no class can be named "{name}"')
            for name in ("model", "label", "id")
        ),
        ({"classes": ["human", "row_id"]}, 'classes: no class can be named "row_id"'),
        ({"classes": ["human", ""]}, 'classes: no class can be named ""'),
        ({"texts": {"text": "row_id"}}, 'texts.text: expected a column of its own, found "row_id", which is id too'),
        (
            {"label": {"column": "row_id"}},
            'label.column: expected a column of its own, found "row_id", which is id too',
        ),
        (
            {"label": {"column": "text"}},
            'label.column: expected a column of its own, found "text", which is texts.text',
        ),
        ({"label": {"one_hot": ["human", "human"]}}, "label.one_hot.1: expected a column of its own"),
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


def test_log_loss_and_accuracy_are_the_librarys() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 200)
    each = probabilities(labels, 3, 1.0, 1)
    assert METRICS["log_loss"].score(labels, each) == pytest.approx(log_loss(labels, each, labels=[0, 1, 2]))
    assert METRICS["accuracy"].score(labels, each) == pytest.approx((each.argmax(1) == labels).mean())
    assert METRICS["accuracy"].better(0.9, 0.8)
    assert METRICS["log_loss"].better(0.8, 0.9)


def test_a_coin_scores_ln_2_on_decisive_rows_whatever_it_says_of_ties() -> None:
    labels = np.array([0, 1, 2, 2, 2, 0])
    for tie in (0.01, 0.5, 0.99):
        coin = np.tile([(1 - tie) / 2, (1 - tie) / 2, tie], (6, 1))
        assert decisive_log_loss(labels, coin, (0, 1)) == pytest.approx(np.log(2))


def test_swapping_the_sides_twice_changes_nothing(lmsys: Competition, spooky: Competition) -> None:
    each = probabilities(np.zeros(5, dtype=int), 3, 1.0, 0)
    assert np.array_equal(lmsys.mirrored(lmsys.mirrored(each)), each)
    assert np.array_equal(lmsys.mirrored(each)[:, 0], each[:, 1])
    assert np.array_equal(spooky.mirrored(each), each)
