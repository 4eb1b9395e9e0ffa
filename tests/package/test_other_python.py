"""The package in a clean environment of the other supported Python, with no more than Kaggle's image brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packaged import KERNEL, LOCK, WHEELS, manifest_of, mount

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.files import read_json
from pipeline.kernel.submission import validate_submission
from pipeline.package.build import build_package
from pipeline.package.scene import read_csv
from pipeline.package.wheels import LIBRARIES, find_wheels

OTHER = "3.12" if sys.version_info[:2] == (3, 11) else "3.11"


def interpreter() -> str:
    """A Python of the other version; pyenv's shims run only the versions that are switched on, so they are tried."""
    candidates = [
        shutil.which(f"python{OTHER}"),
        *sorted(map(str, Path.home().glob(f".pyenv/versions/{OTHER}.*/bin/python"))),
    ]
    for candidate in filter(None, candidates):
        asked = [candidate, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2], sep='.')"]
        if subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == OTHER:
            return candidate
    pytest.skip(f"no Python {OTHER} with venv on this machine")


@pytest.mark.slow
def test_the_package_runs_on_the_other_python(finished: Path, tmp_path: Path, lmsys: Competition) -> None:
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([interpreter(), "-m", "venv", str(tmp_path / "environment")], check=True)
    image = ["numpy", "scipy", "scikit-learn"]
    subprocess.run([str(python), "-m", "pip", "install", "-q", "--only-binary=:all:", *image], check=True)
    artifacts = shutil.copytree(finished / "artifacts", tmp_path / "artifacts")
    build_package(Artifacts(artifacts), load_params(finished / "params.yaml").package, find_wheels(WHEELS, LOCK))
    assert len(manifest_of(artifacts / "package")["wheels"]) == len(LIBRARIES)
    shutil.copytree(finished / "data", tmp_path / "data")
    mounted = mount(tmp_path, tmp_path / "input", files=f"competitions/{lmsys.name}")
    written = []
    for name, executable in (("other", str(python)), ("own", sys.executable)):
        working = tmp_path / name
        environment = {"PATH": os.environ["PATH"], "PODIUM_INPUT": str(mounted), "PODIUM_WORKING": str(working)}
        done = subprocess.run([executable, str(KERNEL)], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        sample = mounted / "competitions" / lmsys.name / "sample_submission.csv"
        assert validate_submission(working / "submission.csv", sample, lmsys) == 24
        assert read_json(working / "rehearsal.json")["parity_max_abs_diff"] <= 1e-4
        written.append(np.array([line[1:] for line in read_csv(working / "submission.csv")[1:]], dtype=float))
    assert np.abs(written[0] - written[1]).max() <= 1e-6
