from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support import ROOT, preference_rows

from pipeline.artifacts import FACTS, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.files import write_json
from pipeline.ingest.prepare import content_hash
from pipeline.members.start import resolve, resolve_pretraining
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


def test_neither_a_metric_nor_how_files_are_written_trains_anything_anew(lmsys: Competition) -> None:
    extra = {"kind": "tabular", "backbone": "none", "model": "logistic"}
    rows = preference_rows(6).lazy()

    def learned(competition: Competition) -> tuple:
        return resolve("mine", params(mine=extra), competition, Artifacts()), content_hash(rows, competition)

    otherwise = {"metric": "accuracy", "answers": {"winner": "label"}, "submission": "file", "medals": {"gold": 0.9}}
    otherwise |= {
        "separator": ";",
        "quotes": "backslash",
        "train": "train.parquet",
        "ignored": ("*",),
        "hidden_rows": 9,
    }
    assert learned(replace(lmsys, **otherwise)) == learned(lmsys)
    start, data = learned(replace(lmsys, turns="plain"))
    assert start != learned(lmsys)[0] and data != learned(lmsys)[1]


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


def test_pretraining_reads_no_more_than_its_backbone_can(tmp_path: Path) -> None:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["backbones"]["bert"]["pretrain"] |= {"epochs": 1, "max_tokens": 600}
    long, facts = validated(Params, value, "params.yaml"), Artifacts(tmp_path).backbone("bert") / FACTS
    facts.parent.mkdir(parents=True)
    for positions in (None, 600, 512):
        write_json(facts, {"sha256": "", "positions": positions})
        if positions != 512:
            assert resolve_pretraining("bert", long, Artifacts(tmp_path))["settings"]["max_tokens"] == 600
    with pytest.raises(PodiumError) as caught:
        resolve_pretraining("bert", long, Artifacts(tmp_path))
    assert str(caught.value) == "params.yaml: backbones.bert.pretrain.max_tokens: 600 is more than its 512 positions"


def test_an_unknown_member_and_a_missing_file_are_named(lmsys: Competition) -> None:
    both = params(
        mine={"kind": "tabular", "backbone": "none", "model": "logistic"},
        friend={"kind": "external", "backbone": "none", "file": "external/x.csv"},
    )
    with pytest.raises(PodiumError, match=r'no member "mne" \(did you mean "mine"\?\)'):
        resolve("mne", both, lmsys, Artifacts())
    with pytest.raises(PodiumError, match=r"external/x\.csv: no such file; members\.friend\.file"):
        resolve("friend", both, lmsys, Artifacts())
