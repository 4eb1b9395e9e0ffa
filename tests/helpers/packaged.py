"""A small real package for the tests: generated votes, two tabular members and a teammate's file, two folds each.

It is built once per test run, by the stages' own code. Tests change copies of it only.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import time
from contextlib import chdir, redirect_stdout
from pathlib import Path
from types import ModuleType
from unittest import mock

import polars as pl
from support import ROOT, write_external

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.data.demo import generate, write
from pipeline.files import read_json, write_json
from pipeline.ingest.prepare import prepare
from pipeline.package.build import build_package
from pipeline.package.manifest import sealed
from pipeline.package.scene import run_script
from pipeline.package.wheels import find_wheels
from stages import backbone, finetune, folds, oof, pretrain, refit, stack, start

WHEELS, LOCK = ROOT / ".venv" / "wheels", ROOT / "requirements.lock"
KERNEL = ROOT / "kaggle_kernels" / "inference" / "main.py"
COMPETITION = "lmsys-chatbot-arena"

PARAMS = """
data: {path: data, competition: lmsys}
demo: {train_rows: 260, test_rows: 24, seed: 20}
folds: {ids: [0, 1], holdout: 0.1, seed: 5}
threads: 1
backbones: {none: {source: none}}
members:
  words: {kind: tabular, backbone: none, model: logistic, features: false, words: {longest: 1, max_features: 500}}
  shape: {kind: tabular, backbone: none, model: lightgbm, boosting: {max_trees: 20}}
  friend: {kind: external, backbone: none, file: external/friend.csv}
stack: {candidates: [mean, logistic], seed: 3}
package: {owner: somebody, slug: some-package, title: Some package, budget_seconds: 600}
"""


def once(base: Path) -> Path:
    """Returns the folder of the finished run, below this test run's folder `base`, built on the first call."""
    root = base / "finished"
    if not Artifacts(root / "artifacts").package.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        build(root)
    return root


def build(root: Path, settings: str = PARAMS) -> None:
    """Makes a whole run up to the package: root/data, root/params.yaml, root/artifacts."""
    (root / "params.yaml").write_text(settings)
    with chdir(root):
        artifacts, params, competition = Artifacts(), load_params(), load_competition("lmsys")
        demo = generate(params.demo.train_rows, params.demo.test_rows, params.demo.seed)
        write(demo, Path("data"))
        prepare(Path("data"), competition, artifacts.competition_folder)
        train = pl.read_parquet(artifacts.train_file).select("id", "label")
        test = pl.read_parquet(artifacts.test_file).select("id", pl.lit(0, pl.Int16).alias("label"))
        write_external(root, "friend", pl.concat([train, test]), competition, sharpness=1.0)
    build_prepared(root)


def build_prepared(root: Path) -> None:
    """Goes on from root/params.yaml and a prepared competition to the package."""
    with chdir(root):
        artifacts, params = Artifacts(), load_params()
        folds.main()
        for name in params.backbones:
            backbone.main(name)
        start.start_pretrain(params, artifacts)
        for name in params.backbones:
            pretrain.main(name)
        start.start(params, artifacts)
        for member in params.members:
            for fold in params.folds.ids:
                finetune.main(member, fold, None)
        for file in (artifacts.root / "receipts").glob("*.json"):
            receipt = read_json(file)
            if receipt.get("training"):  # networks as small as those of the tests learn nothing; they shall stay in
                write_json(file, receipt | {"training": receipt["training"] | {"collapsed": False}})
        if params.refit:
            for member in params.members:
                refit.main(member)
        oof.main()
        stack.main()
        # One small wheel stands for all: installing it is as real and a few times as quick.
        small = [wheel for wheel in find_wheels(WHEELS, LOCK) if wheel.name.startswith("safetensors")]
        build_package(artifacts, params.package, small)


def mount(run: Path, target: Path, package: str = "datasets/somebody/some-package", files: str = COMPETITION) -> Path:
    """Makes an input tree in `target` with changeable copies of the package and the competition's files of `run`."""
    shutil.copytree(Artifacts(run / "artifacts").package, target / package)
    (target / files).mkdir(parents=True)
    for name in ("test.csv", "sample_submission.csv"):
        shutil.copyfile(run / "data" / name, target / files / name)
    return target


def manifest_of(package: Path) -> dict:
    """Returns MANIFEST.json."""
    return read_json(Artifacts(package).manifest_file)


def write_manifest(package: Path, manifest: dict) -> None:
    """Replaces MANIFEST.json, under a seal that fits."""
    write_json(Artifacts(package).manifest_file, sealed(manifest))


def run_kernel(
    mounted: Path, working: Path, rerun: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs kaggle_kernels/inference/main.py as a plain script, in one of its two manners."""
    # What a kernel that is killed leaves behind goes with the test's own folder.
    ran = run_script(mounted, working, rerun, 300.0, {"TMPDIR": str(mounted.parent)} | environment)
    return subprocess.CompletedProcess([str(KERNEL)], ran.code, ran.log, "")


def kernel_script() -> ModuleType:
    """The kernel's script as a module."""
    spec = importlib.util.spec_from_file_location("kernel_main", KERNEL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_here(mounted: Path, working: Path, rerun: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs that script in this process, with this checkout's code, which saves the seconds that its imports take."""
    main, log = kernel_script(), io.StringIO()
    main.process_start = time.monotonic  # this process is older than the kernel
    changed = {"PODIUM_INPUT": str(mounted), "PODIUM_WORKING": str(working)} | environment
    if rerun:
        changed["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    paths = sys.path.copy()
    with (
        mock.patch.dict(os.environ, changed),
        mock.patch.object(sys, "dont_write_bytecode", False),
        redirect_stdout(log),
    ):
        code = main.main()
    sys.path[:] = paths
    return subprocess.CompletedProcess([str(KERNEL)], code, log.getvalue(), "")


def kernel_error(done: subprocess.CompletedProcess[str]) -> str:
    """Returns the one error line of a failed dress rehearsal, after checking that it is one, with exit code 2."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, done.stdout
    assert done.stdout.splitlines()[-1] == lines[0]
    return lines[0]
