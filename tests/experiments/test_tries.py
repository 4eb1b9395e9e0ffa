"""A quick try of every kind of member, and the table of tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from networks import ready
from support import ROOT, preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, Label
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.experiments.tries import Try, changed_settings, keep, kept, try_member
from pipeline.files import read_json
from pipeline.members.start import resolve
from pipeline.validation import validated

TRAINING = {"schedule": {"rate": 1.0e-3}, "batches": {"rows_per_step": 8, "tokens_per_batch": 1024}}
MEMBERS: dict[str, dict[str, Any]] = {
    "words": {
        "kind": "tabular",
        "backbone": "none",
        "model": "logistic",
        "words": {"longest": 1, "max_features": 500, "min_df": 1},
    },
    "encoder": {"kind": "encoder", "backbone": "bert", "max_tokens": 64, "training": TRAINING},
    "judge": {"kind": "decoder", "backbone": "llama", "max_tokens": 96, "training": TRAINING}
    | {"inference": {"precision": "nf4"}},
    "asked": {"kind": "decoder", "backbone": "llama", "max_tokens": 200, "head": "tokens"}
    | {"training": TRAINING | {"epochs": 0}, "inference": {"precision": "int8"}},
    "friend": {"kind": "external", "backbone": "none", "file": "external/friend.csv", "folds": [0]},
}
ONE = Try("2026-11-30 12:00:00", "words", 0, 20, 0.5, 0.7, 1.5, 0.1, "0.7 0.5", 'a.b 1 -> ["x", 2]')


@pytest.fixture(scope="module")
def params() -> Params:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["members"] = MEMBERS
    value["folds"] |= {"ids": [0, 1]}
    return validated(Params, value, "params.yaml")


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(40)
    (tmp_path / "external").mkdir()
    shares = [f"{row},0.5,0.3,0.2" for row in rows["id"]]
    (tmp_path / "external" / "friend.csv").write_text("\n".join([f"id,{','.join(lmsys.classes)}", *shares]) + "\n")
    return Artifacts(ready(tmp_path, rows, lmsys, [n % 2 for n in range(40)], backbones))


@pytest.mark.parametrize("name", MEMBERS)
def test_every_kind_is_tried_on_a_slice_and_leaves_nothing(name: str, params: Params, artifacts: Artifacts) -> None:
    before = sorted(artifacts.root.rglob("*"))
    one = try_member(name, 0, 12, params, ["x 1 -> 2"], artifacts)
    assert (one.member, one.fold, one.rows, one.changed) == (name, 0, 12, "x 1 -> 2")
    assert one.score > 0 and one.constant > 0
    assert bool(one.curve) == (name in ("encoder", "judge"))
    # 20 rows train each of two folds, or one: from 12.
    folds = 1 if name == "friend" else 2
    assert one.full_minutes == pytest.approx(one.seconds_per_1000_rows / 1000 * 20 * folds / 60, abs=0.06)
    assert sorted(artifacts.root.rglob("*")) == before


def test_what_cannot_be_tried_is_one_line(params: Params, artifacts: Artifacts) -> None:
    with pytest.raises(PodiumError, match=r'MEMBER: no member "word" in params\.yaml'):
        try_member("word", 0, 12, params, [], artifacts)
    with pytest.raises(PodiumError, match="FOLD: expected one of 0, 1, found 7"):
        try_member("words", 7, 12, params, [], artifacts)


def test_a_prompt_without_room_or_answers_is_refused_before_anything_trains(
    params: Params, artifacts: Artifacts, lmsys: Competition
) -> None:
    members = dict(params.members)
    members["asked"] = replace(members["asked"], max_tokens=32)
    with pytest.raises(
        PodiumError, match=r"members\.asked: max_tokens: the prompt needs at least \d+ tokens, found 32"
    ):
        resolve("asked", replace(params, members=members), lmsys, artifacts)
    numbers = replace(lmsys, outcome="numbers", label=Label(columns=("score",)), centre=(0.0,), spread=(1.0,))
    with pytest.raises(PodiumError, match=r"members\.asked\.head: numbers have no tokens to answer with"):
        resolve("asked", params, numbers, artifacts)


def test_the_table_keeps_every_try_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "work" / "tries.csv"
    assert kept(file) == []
    tries = [ONE, replace(ONE, member='quoted "name", with\nlines', curve="")]
    for each in tries:
        keep(each, file)
    assert kept(file) == [{name: str(value) for name, value in vars(each).items()} for each in tries]


def test_changed_settings_are_told_by_their_keys() -> None:
    committed = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}, "f": None}
    now = {"a": {"b": 2, "c": {"d": [1, 2]}, "new": True}, "e": {"g": "x"}, "f": None}
    assert changed_settings(committed, committed) == []
    found = changed_settings(now, committed)
    assert found == ["a.b 1 -> 2", "a.new (none) -> True", "e.g (none) -> x", "e {} -> (none)"]


def test_settings_in_a_start_file_are_left_alone(artifacts: Artifacts, params: Params) -> None:
    try_member("words", 1, 8, params, [], artifacts)
    assert not artifacts.start("words").exists() and read_json(artifacts.competition_file)
