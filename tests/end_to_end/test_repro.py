"""`dvc repro` as a user runs it, in a temporary clone of this checkout with a small generated competition."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from support import ROOT


def sh(command: str, cwd: Path) -> str:
    """Output of a command that must succeed, with this environment's tools first on PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, shell=True, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def ran(output: str) -> set[str]:
    """The stages that DVC ran, as it names them."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def edit(clone: Path, *keys: str, value: object) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    place = params
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed clone, built once from raw data to the report: two members, two folds, 400 rows."""
    target = tmp_path_factory.mktemp("clone") / "podium"
    for name in sh("git ls-files --cached --others --exclude-standard", ROOT).splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    (target / ".venv").symlink_to(ROOT / ".venv")
    edit(target, "demo", value={"train_rows": 400, "test_rows": 60, "seed": 1})
    edit(target, "folds", value={"ids": [0, 1], "holdout": 0.2, "seed": 1})
    members = {
        "words": {
            "kind": "tabular",
            "backbone": "none",
            "model": "logistic",
            "words": {"longest": 1, "max_features": 2000},
        },
        "shape": {"kind": "tabular", "backbone": "none", "model": "lightgbm", "boosting": {"max_trees": 60}},
    }
    edit(target, "members", value=members)
    edit(target, "backbones", value={"none": {"source": "none"}})
    edit(target, "stack", "candidates", value=["mean", "logistic"])  # the others take most of the time
    edit(target, "threads", value=1)
    sh("git init -q && git add -A && git -c user.name=x -c user.email=x@x commit -qm one", target)
    output = sh("dvc repro", target)
    assert {"finetune@words-1", "rehearse", "report"} <= ran(output)
    return target


def test_it_ends_with_a_valid_submission_and_a_page(clone: Path) -> None:
    rehearsal = json.loads((clone / "metrics" / "rehearsal.json").read_text())
    assert rehearsal["valid"] is True
    assert rehearsal["network"] in ("namespace", "sockets")
    assert rehearsal["parity_max_abs_diff"] < 1e-4
    assert rehearsal["rows"] == 60 == sum(rehearsal["rows_per_rung"].values())
    submission = pl.read_csv(clone / "artifacts" / "rehearsal" / "submission.csv", infer_schema=False)
    sample = pl.read_csv(clone / "data" / "demo" / "sample_submission.csv", infer_schema=False)
    assert submission.columns == sample.columns
    assert submission["id"].equals(sample["id"])
    numbers = submission.drop("id").cast(pl.Float64)
    assert (numbers.sum_horizontal() - 1).abs().max() < 1e-9
    cv = json.loads((clone / "metrics" / "cv.json").read_text())
    assert cv["bayes"] < cv["stack"]["score"] < cv["prior"]
    assert set(cv["members"]) == {"words", "shape"}
    page = (clone / "reports" / "index.html").read_text()
    assert f"{cv['stack']['score']:.4f}" in page


def test_nothing_to_do_runs_nothing(clone: Path) -> None:
    assert ran(sh("dvc repro", clone)) == set()


def test_git_sees_only_what_a_user_commits(clone: Path) -> None:
    shown = sh("git status --porcelain --untracked-files=all", clone).split()
    metrics = {f"metrics/{name}.json" for name in ("cv", "probe", "rehearsal", "pretrain/none")}
    assert set(shown[1::2]) == metrics | {"dvc.lock"}


def test_neither_a_comment_nor_the_code_of_another_kind_reruns_a_fold(clone: Path) -> None:
    for name in ("pipeline/models/tabular/model.py", "pipeline/members/fold.py", "pipeline/data/folds.py"):
        file = clone / name
        file.write_text(file.read_text() + "\n# A comment.\n")
    file = clone / "pipeline" / "members" / "external.py"
    changed = file.read_text().replace("TOLERANCE = 1.0e-3", "TOLERANCE = 2.0e-3")
    assert changed != file.read_text()
    file.write_text(changed)
    again = ran(sh("dvc repro oof", clone))  # as far as the folds, and what is first of all that reads them
    assert not {name for name in again if name.startswith(("finetune", "oof"))}
    assert "start@words" in again


def test_one_members_params_rerun_its_folds_and_what_follows(clone: Path) -> None:
    edit(clone, "members", "words", "words", "max_features", value=1000)
    again = ran(sh("dvc repro package", clone))
    assert {name for name in again if name.startswith("finetune")} == {"finetune@words-0", "finetune@words-1"}
    assert {"oof", "stack", "package"} <= again
    assert {"rehearse", "report"} <= set(json.loads(sh("dvc status --json", clone)))
