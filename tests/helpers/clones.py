"""Clones of this checkout with a small competition, in which `dvc repro` runs as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def small_clone(target: Path) -> Path:
    """A committed clone with two members, two folds and 400 rows, in which nothing has been built."""
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
    return target
