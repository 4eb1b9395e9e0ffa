"""A member with collapsed fold models: left out of the stack, told in metrics/cv.json, or the end of the build."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from support import preference_rows, probabilities

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.ensemble.build_ladder import build_ladder
from pipeline.ensemble.nested import compare_candidates
from pipeline.ensemble.table import Table
from pipeline.errors import PodiumError
from pipeline.evaluation.collapse import collapsed_folds
from pipeline.evaluation.cv import Stacked, cv_scores


def record(collapsed: bool) -> dict[str, Any]:
    attempt = {"run": 0, "rate": 1e-4, "warmup": 0.1, "of": 100}
    attempts = [
        attempt | {"attempt": 0, "steps": 20, "stopped": "flat"},
        attempt | {"attempt": 1, "steps": 100, "stopped": None},
    ]
    return {"collapsed": collapsed, "attempts": attempts, "truncation": {"a": {"rows": 0.5, "tokens": 0.1}}}


TRAINING = {"good": {}, "net": {0: record(False), 1: record(True)}}


def test_a_collapsed_member_is_told_but_not_stacked(lmsys: Competition) -> None:
    rows = preference_rows(200, seed=2)
    labels = rows["label"].to_numpy()
    says = {name: probabilities(labels, 3, sharp, 1) for name, sharp in (("net", 0.1), ("good", 1.2))}
    oof = Table(rows.drop("label").with_columns(pl.Series("fold", np.arange(200) // 2 % 2)), labels, says)
    comparison = compare_candidates(oof, ["good"], ("mean",), lmsys, 1, 0)
    ladder = build_ladder(oof, ["good"], "mean", lmsys, 1, 0)
    found = cv_scores(Stacked(oof, None, None, comparison, ladder, None, 0), TRAINING, {}).as_json()
    assert list(found["members"]) == ["good", "net"]
    good, net = found["members"].values()
    assert net["score"] == METRICS["log_loss"].score(labels, says["net"])
    assert (net["collapsed"], net["attempts"], net["updates"], net["seconds"]) == (1, 2, 1.2, None)
    assert net["stopped"][1] == "fold 1, attempt 1 (rate 0.0001, warmup 10%), 20 of 100 steps: flat"
    assert net["truncation"] == {"a": {"rows": 0.5, "tokens": 0.1}}
    assert "gap" not in net and good["gap"] is None and "stopped" not in good
    assert found["stack"]["best_member"] == "good" and found["stack"]["holdout"] is None
    assert set(found["decisive"]["members"]) == {"good"} and "bayes" not in found
    assert found["dropped"] == {"net": "1 of 2 fold models are no better than the prior"}
    assert found["warnings"][-1].startswith('member "net" is LEFT OUT of stack and package: 1 of 2')
    json.dumps(found, allow_nan=False)


def test_a_collapsed_member_may_end_the_build() -> None:
    assert collapsed_folds(TRAINING, "drop") == {"net": [1]}
    with pytest.raises(PodiumError, match=r"net: fold models \[1\] are no better than the prior"):
        collapsed_folds(TRAINING, "fail")
