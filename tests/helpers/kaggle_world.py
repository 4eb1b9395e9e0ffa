"""A small repository with a package made by hand, and the processes that work in it and see the tests' server only."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from support import ROOT

from pipeline.competitions.registry import load_competition
from pipeline.config import Package
from pipeline.files import read_json, sha256_file, write_json
from pipeline.kaggle.cli import Patience
from pipeline.ledger.ledger import NO_SCORE, ledger_text
from pipeline.package.bases import find_bases

IMPATIENT = Patience(attempts=3, backoff=0.05, silence=60.0, poll=0.02)
SETTINGS = Package(owner="somebody", slug="some-package", title="Some package", budget_seconds=600)
DATASET, KERNEL = "somebody/some-package", "somebody/podium-inference"
OTHER = f"podium {64 * '0'} commit c0ffee"
"""Notes of a version that holds another package."""
COMPETITION = "lmsys-chatbot-arena"

PARAMS = """data: {path: data/demo, competition: lmsys}
demo: {train_rows: 100, test_rows: 10, seed: 20}
folds: {ids: [0, 1], holdout: 0.1, seed: 5}
threads: 1
backbones: {none: {source: none}}
members:
  shape: {kind: tabular, backbone: none, model: lightgbm, seed: 500}
stack: {candidates: [mean, logistic], seed: 3}
package: {owner: your-kaggle-name, slug: some-package, title: Some package, budget_seconds: 600}
"""

# One stage stands for the whole graph: what publish asks DVC is whether `rehearse` and what it needs are up to date.
DVC = """stages:
  rehearse:
    cmd: "true"
    deps: [artifacts/package, kaggle_kernels/inference/main.py]
    params: [members, stack]
    metrics: [{metrics/cv.json: {cache: false}}, {metrics/rehearsal.json: {cache: false}}]
metrics: [lb.json]
"""

IDENTITY = {
    "GIT_AUTHOR_NAME": "Some Body",
    "GIT_AUTHOR_EMAIL": "some@body",
    "GIT_COMMITTER_NAME": "Some Body",
    "GIT_COMMITTER_EMAIL": "some@body",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def run(*command: str, cwd: Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a repository, with its output."""
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | IDENTITY | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def make_package(folder: Path, seed: int = 0, size: int = 20_000, base: int | None = None) -> None:
    """A package with one member, by hand: random bytes for weights, code, parity rows and a true manifest.

    `base` seeds the weights of a base that fold models share; None for a package without one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    draw = random.Random(seed)
    parts = {"members/words/fold0/model.safetensors": size, "code/pipeline/__init__.py": 10, "parity.parquet": 300}
    for name, length in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(draw.randbytes(length))
    shared = {"llama/backbone.json": 0, "llama-nf4/config.json": 20, "llama-nf4/model.safetensors": size}
    for name, length in shared.items():
        if base is not None:
            (folder / "pretrained" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "pretrained" / name).write_bytes(random.Random(base).randbytes(length))
            parts[f"pretrained/{name}"] = length
    files = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size} for name in sorted(parts)
    }
    write_json(folder / "dataset-metadata.json", {"title": "x", "id": DATASET, "licenses": [{"name": "other"}]})
    write_json(
        folder / "MANIFEST.json",
        {
            "format": 1,
            "competition": asdict(load_competition("lmsys")),
            "rungs": [{"name": "prior"}, {"name": "words"}],
            "budget_seconds": 600,
            "bases": find_bases(files),
            "files": files,
        },
    )


def make_repository(root: Path, cv: float = 1.05) -> None:
    """A git and DVC repository in which everything is committed and up to date."""
    (root / "kaggle_kernels").mkdir(parents=True)
    shutil.copytree(ROOT / "kaggle_kernels" / "inference", root / "kaggle_kernels" / "inference")
    make_package(root / "artifacts" / "package")
    (root / "params.yaml").write_text(PARAMS)
    (root / "dvc.yaml").write_text(DVC)
    (root / ".gitignore").write_text("/artifacts/\n/work/\n/data/\n")
    (root / "lb.json").write_text(NO_SCORE)
    (root / "ledger.csv").write_text(ledger_text([]))
    write_json(root / "metrics" / "rehearsal.json", {"valid": True, "elapsed_seconds": 12.5, "rows": 10})
    write_cv(root, cv)
    run("git", "init", "-q", "-b", "main", cwd=root)
    dvc("init", "-q", cwd=root)
    dvc("commit", "-f", "-q", cwd=root)
    commit(root, "one")


def write_cv(root: Path, score: float) -> None:
    write_json(root / "metrics" / "cv.json", {"stack": {"score": score, "standard_error": 0.004, "chosen": "mean"}})


def dvc(*arguments: str, cwd: Path) -> str:
    return run(sys.executable, "-m", "dvc", *arguments, cwd=cwd, DVC_NO_ANALYTICS="1").stdout


def commit(root: Path, message: str) -> str:
    """Commits everything; returns the commit."""
    run("git", "add", "-A", cwd=root)
    run("git", "commit", "-qm", message, cwd=root)
    return head(root)


def head(root: Path) -> str:
    return run("git", "rev-parse", "HEAD", cwd=root).stdout.strip()


def experiment(root: Path, number: int, cv: float) -> str:
    """What a user does between two submissions: other params, `dvc repro`, a commit."""
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("seed: 500", f"seed: {500 + 100 * number}"))
    make_package(root / "artifacts" / "package", seed=number)
    write_cv(root, cv)
    dvc("commit", "-f", "-q", cwd=root)
    return commit(root, f"experiment {number}")


def lb(root: Path, revision: str = "HEAD") -> dict:
    """lb.json of a commit."""
    (root / ".lb").write_text(run("git", "show", f"{revision}:lb.json", cwd=root).stdout)
    found = read_json(root / ".lb")
    (root / ".lb").unlink()
    return found
