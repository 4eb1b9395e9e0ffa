"""A student in the real graph: trained after its teachers, and again when one of them changes, and then alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clones import edit, ran, sh, small_clone

from pipeline.data.demo import generate, write

SCRATCH = {"source": "scratch", "architecture": "deberta-v3", "vocabulary": 400, "hidden": 32, "layers": 1, "heads": 2}
SMALL = {
    "kind": "encoder",
    "backbone": "bert",
    "max_tokens": 64,
    "head": "equivariant",
    "training": {"schedule": {"rate": 2.0e-3}, "precision": "fp32"},
    "teachers": {"members": ["words"], "weight": 1.0},
}


@pytest.mark.slow
def test_the_graph_knows_who_learns_from_whom(tmp_path: Path) -> None:
    clone = small_clone(tmp_path / "podium")
    edit(clone, "backbones", "bert", value=SCRATCH)
    write(generate(40, 5, 2), clone / "external" / "more")
    edit(clone, "extra", value={"more": {"path": "external/more", "competition": "lmsys", "labels": "none"}})
    edit(clone, "students", value={"small": SMALL | {"extra": ["more"]}})
    built = ran(sh("dvc repro", clone))
    lessons = {f"teach@small-{member}-{fold}" for member in ("words", "shape") for fold in (0, 1)}
    assert built >= lessons | {"distil@small-0", "distil@small-1", "package", "report"}
    assert set(json.loads((clone / "metrics/cv.json").read_text())["members"]) == {"words", "shape", "small"}
    assert not list((clone / "artifacts/package").rglob("lessons"))
    receipt = json.loads((clone / "artifacts/receipts/small-fold1.json").read_text())
    assert receipt["teachers"]["words"]["fold"] == 1
    assert 0 < receipt["extra"]["more"]["rows"] <= 40
    assert ran(sh("dvc repro", clone)) == set()

    edit(clone, "members", "shape", "boosting", "max_trees", value=50)  # no teacher
    again = ran(sh("dvc repro oof", clone))
    assert again >= {"finetune@shape-0", "finetune@shape-1"}
    assert not {name for name in again if name.startswith(("distil", "finetune@words"))}

    edit(clone, "extra", "more", "weight", value=0.5)  # no other rows, and yet another student
    again = ran(sh("dvc repro oof", clone))
    assert again >= {"extra", "start", "distil@small-0", "distil@small-1"}
    assert not {name for name in again if name.startswith("finetune")}

    edit(clone, "members", "words", "words", "max_features", value=1000)
    again = ran(sh("dvc repro oof", clone))
    assert again >= {"finetune@words-0", "teach@small-words-0", "distil@small-0", "distil@small-1", "oof"}
    assert not {name for name in again if name.startswith("finetune@shape")}
    sh("python -m pipeline.prune", clone)
    assert (clone / "artifacts/lessons/small/fold0/words/answers.parquet").is_file()
