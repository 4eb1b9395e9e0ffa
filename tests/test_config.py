from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT, error_line, run_module

from pipeline.config import Params, load_params
from pipeline.errors import PodiumError
from pipeline.validation import validated


def changed(*keys: str, value: Any) -> dict[str, Any]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    place = params
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    return params


def a_member(**settings: Any) -> dict[str, Any]:
    return changed("members", value={"one": {"kind": "tabular", "model": "logistic"} | settings})


def test_the_shipped_params_are_sound() -> None:
    assert len(load_params(ROOT / "params.yaml").members) >= 2


def test_params_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_params(ROOT / "params.yaml").threads = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (changed("fold", value=3), 'unknown key "fold" (did you mean "folds"?)'),
        (a_member(featurs=True), 'unknown key "members.one.featurs" (did you mean "features"?)'),
        (a_member(words={"nn": 1}), 'missing key "members.one.words.longest"'),
        (a_member(logistic={"see": 1.0}), 'unknown key "members.one.logistic.see"'),
        (changed("threads", value="2"), 'threads: input should be a valid integer, found "2"'),
        (changed("threads", value=True), "threads: input should be a valid integer, found true"),
        (changed("folds", "seed", value="1e-4"), 'folds.seed: input should be a valid integer, found "1e-4"'),
        (changed("folds", "ids", value=[1, 2]), "folds.ids: expected [0, 1], found [1, 2]"),
        (changed("folds", "holdout", value=0.9), "folds.holdout: input should be less than or equal to 0.5, found 0.9"),
        (a_member(folds=[99]), "members.one.folds: [99] not in folds.ids"),
        (a_member(kind="tabula"), "members.one: input tag 'tabula'"),
        (a_member(features=False), "members.one: give the member an input"),
        (changed("members", value={}), "members: dictionary should have at least 1 item"),
        (changed("members", value={"x": {"kind": "external", "file": "../x.csv"}}), "expected a file under external/"),
    ],
)
def test_a_wrong_key_or_type_is_named(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(PodiumError) as caught:
        validated(Params, params, "params.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stage_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed("fold", value=3)))
    assert 'did you mean "folds"?' in error_line(run_module("stages.folds", cwd=tmp_path))
    assert "Traceback" in run_module("stages.folds", cwd=tmp_path, PODIUM_DEBUG="1").stderr


def test_broken_and_missing_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(PodiumError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")
