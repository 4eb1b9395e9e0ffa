from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import ROOT

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.members.start import resolve
from pipeline.validation import validated


def params(**members: dict) -> Params:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["members"] |= members
    return validated(Params, value, "params.yaml")


def test_a_start_file_holds_what_decides_a_members_training(lmsys: Competition) -> None:
    extra = {"kind": "tabular", "backbone": "none", "model": "logistic", "seed": 1}
    first = resolve("mine", params(mine=extra), lmsys, Artifacts())
    assert first == resolve("mine", params(mine=extra), lmsys, Artifacts())
    assert first["settings"]["logistic"]["c"] > 0  # defaults are written out
    assert {"numpy", "polars", "sklearn", "lightgbm"} <= set(first["libraries"])
    assert first != resolve("mine", params(mine=extra | {"seed": 2}), lmsys, Artifacts())
    assert first == resolve(
        "mine",
        params(mine=extra, other={"kind": "tabular", "backbone": "none", "model": "logistic"}),
        lmsys,
        Artifacts(),
    )


def test_each_kind_has_a_fingerprint_of_its_own(
    lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "external").mkdir()
    file = tmp_path / "external" / "x.csv"
    file.write_text("id\n")
    both = params(
        mine={"kind": "tabular", "backbone": "none", "model": "logistic"},
        friend={"kind": "external", "backbone": "none", "file": "external/x.csv"},
    )
    friend = resolve("friend", both, lmsys, Artifacts())
    assert friend["code"] != resolve("mine", both, lmsys, Artifacts())["code"]
    assert "lightgbm" not in friend["libraries"]
    file.write_text("id\n1\n")
    assert resolve("friend", both, lmsys, Artifacts())["files"] != friend["files"]


def test_an_unknown_member_and_a_missing_file_are_named(lmsys: Competition) -> None:
    both = params(
        mine={"kind": "tabular", "backbone": "none", "model": "logistic"},
        friend={"kind": "external", "backbone": "none", "file": "external/x.csv"},
    )
    with pytest.raises(PodiumError, match=r'no member "mne" \(did you mean "mine"\?\)'):
        resolve("mne", both, lmsys, Artifacts())
    with pytest.raises(PodiumError, match=r"external/x\.csv: no such file; members\.friend\.file"):
        resolve("friend", both, lmsys, Artifacts())
