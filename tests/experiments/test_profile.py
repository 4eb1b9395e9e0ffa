"""The page that says where a member's time goes: its parts make up the whole, and nothing is left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from networks import ready
from support import ROOT, preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.experiments import profile
from pipeline.training.clock import SPENT, timed, uncounted
from pipeline.validation import validated

WORDS = {
    "kind": "tabular",
    "backbone": "none",
    "model": "logistic",
    "words": {"longest": 1, "max_features": 500, "min_df": 1},
}
ENCODER = {"kind": "encoder", "backbone": "bert", "max_tokens": 64} | {
    "training": {"schedule": {"rate": 1.0e-3}, "batches": {"rows_per_step": 8, "tokens_per_batch": 1024}, "inner": 0.2}
}


def test_the_parts_make_up_the_whole(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profile, "OPERATOR_ROWS", 8)
    rows = preference_rows(60)
    artifacts = Artifacts(ready(tmp_path, rows, lmsys, [n % 2 for n in range(60)], backbones))
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value |= {"members": {"words": WORDS, "encoder": ENCODER}, "folds": value["folds"] | {"ids": [0, 1]}}
    params = validated(Params, value, "params.yaml")
    before = sorted(artifacts.root.rglob("*"))
    page = profile.profile_member("encoder", 0, 24, params, artifacts)
    whole = float(re.findall(r"24 rows in ([\d.]+) s", page)[0])
    parts = {name: float(seconds) for name, seconds in re.findall(r"^  (\w+) +(-?[\d.]+) s ", page, re.M)}
    assert set(parts) == {
        *("tokenising", "data", "forward", "backward", "optimiser", "waiting", "evaluation", "Python", "around")
    }
    assert sum(parts.values()) == pytest.approx(whole, abs=0.15) and min(parts.values()) >= 0
    assert "calls  aten::addmm" in page
    assert "this kind has no steps" in profile.profile_member("words", 0, 24, params, artifacts)
    assert sorted(artifacts.root.rglob("*")) == before
    with pytest.raises(PodiumError, match=r'MEMBER: no member "word" in params\.yaml'):
        profile.profile_member("word", 0, 24, params, artifacts)


def test_what_is_not_to_be_counted_is_not() -> None:
    SPENT.clear()
    with timed("one"), uncounted(), timed("two"):
        pass
    assert set(SPENT) == {"one"}
    SPENT.clear()
