"""The final refit: trained on every row, packaged beside the fold models, checked for parity, used by the kernel."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from packaged import WHEELS, manifest_of, mount, run_here

from pipeline.artifacts import Artifacts
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.members.refit import PARITY_ROWS
from pipeline.package.build import build_package
from pipeline.package.scene import read_csv
from pipeline.package.wheels import find_wheels
from stages import refit

EXTRA = 2
"""The number of the refit in the package: folds are 0 and 1."""


@pytest.fixture(scope="module")
def refitted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with `refit: true`: artifacts/refit/ of every member, and the package built anew."""
    root = shutil.copytree(finished, tmp_path_factory.mktemp("refitted") / "run")
    params = root / "params.yaml"
    params.write_text(params.read_text() + "refit: true\n")
    before = Path.cwd()
    os.chdir(root)
    try:
        for member in load_params().members:
            refit.main(member)
        small = [
            wheel for wheel in find_wheels(WHEELS, WHEELS.parents[1] / "requirements.lock") if "safet" in wheel.name
        ]
        build_package(Artifacts(), load_params().package, small)
    finally:
        os.chdir(before)
    return root


def test_the_refit_is_packaged_first_beside_the_fold_models(refitted: Path) -> None:
    package = refitted / "artifacts/package"
    members = manifest_of(package)["members"]
    assert members["words"]["folds"] == members["shape"]["folds"] == [EXTRA, 0, 1]
    assert members["friend"]["folds"] == [0, 1]  # a file of predictions cannot be trained
    model = package / "members/words" / f"fold{EXTRA}"
    assert json.loads((model / "member.json").read_text())["trained"] is True
    parity = pl.read_parquet(package / "parity.parquet").filter(pl.col("fold") == EXTRA)
    assert len(parity) == PARITY_ROWS
    assert parity["words/winner_tie"].null_count() == 0
    assert parity["friend/winner_tie"].null_count() == len(parity)


@pytest.mark.slow
def test_the_kernel_runs_it_and_checks_its_parity(finished: Path, refitted: Path, tmp_path: Path) -> None:
    mounted = mount(refitted, tmp_path / "input")
    done = run_here(mounted, tmp_path / "working")
    assert done.returncode == 0, done.stdout
    plan = json.loads((tmp_path / "working/rehearsal.json").read_text())["plan"]
    assert [step["fold"] for step in plan if step["member"] == "words"] == [EXTRA, 0, 1]
    assert all(step["status"] == "done" for step in plan)
    without = run_here(mount(finished, tmp_path / "other"), tmp_path / "without")
    assert without.returncode == 0
    answers = [read_csv(tmp_path / folder / "submission.csv") for folder in ("working", "without")]
    assert len(answers[0]) == len(answers[1]) == 25
    assert answers[0] != answers[1]


def test_a_damaged_refit_is_not_packaged(refitted: Path, tmp_path: Path) -> None:
    artifacts = shutil.copytree(refitted / "artifacts", tmp_path / "artifacts")
    parity = artifacts / "refit/shape/parity.parquet"
    pl.read_parquet(parity).with_columns(pl.col("winner_tie") + 0.01).write_parquet(parity)
    with pytest.raises(PodiumError, match=f"shape fold {EXTRA}: expected its out-of-fold predictions"):
        build_package(Artifacts(artifacts), load_params(refitted / "params.yaml").package, [])


def test_without_a_refit_nothing_is_added(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(root)
    refit.main("words")
    assert json.loads(Path("artifacts/refit/words/model/member.json").read_text())["trained"] is False
    build_package(Artifacts(), load_params().package, [])
    assert manifest_of(Path("artifacts/package"))["members"]["words"]["folds"] == [0, 1]
