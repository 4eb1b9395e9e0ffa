"""A build that is killed, or whose disk fills up, in any stage: the next one ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clones import sh

from pipeline.files import read_json, sha256_file

pytestmark = pytest.mark.slow

STAGES = {
    "demo": "data",
    "prepare": "artifacts",
    "folds": "artifacts",
    "backbone@none": "artifacts",
    "start": "artifacts",
    "finetune@shape-0": "artifacts",
    "refit@words": "artifacts",
    "probe": "metrics",
    "oof": "artifacts",
    "stack": "artifacts",
    "diagnostics": "artifacts",
    "package": "artifacts",
    "rehearse": "artifacts",
    "report": "reports",
}
"""Stage -> the folder in which its output lies."""
DRAWS = 30


def finals(clone: Path) -> dict[str, str]:
    """Every file that a build has made, by its hash, and the scores without measured seconds."""
    files = [file for file in (clone / "artifacts").rglob("*") if file.is_file()]
    cv = read_json(clone / "metrics" / "cv.json")
    for member in cv["members"].values():
        del member["seconds"]
    scores = {"cv.json": json.dumps(cv), "probe.json": (clone / "metrics" / "probe.json").read_text()}
    return {str(file.relative_to(clone)): sha256_file(file) for file in files} | scores


@pytest.fixture(scope="module")
def wanted(clone: Path) -> dict[str, str]:
    """The files of a build that was left alone."""
    return finals(clone)


def begun(clone: Path, stage: str) -> subprocess.Popen[str]:
    """`dvc repro` of one stage, whose output it makes anew, once the stage itself runs."""
    shutil.rmtree(clone / ".dvc" / "cache" / "runs", ignore_errors=True)  # else DVC would only look it up
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", stage],
        cwd=clone,
        env=os.environ | {"PATH": path, "PYTHONPATH": "", "DVC_NO_ANALYTICS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Running stage"):
            return process
    raise AssertionError(f"{stage} did not begin")


@pytest.fixture(scope="module")
def seconds(clone: Path, wanted: dict[str, str]) -> dict[str, float]:
    """How long each stage takes, DVC's work on its output included; filled as it is asked for."""
    return {}


@pytest.mark.parametrize("draw", range(DRAWS))
def test_killed_at_a_random_moment_it_ends_as_if_left_alone(
    clone: Path, wanted: dict[str, str], seconds: dict[str, float], draw: int
) -> None:
    stage = list(STAGES)[draw % len(STAGES)]
    if stage not in seconds:
        with begun(clone, stage) as process:
            since = time.monotonic()
            process.communicate()
            seconds[stage] = time.monotonic() - since
    with begun(clone, stage) as process:
        time.sleep(random.Random(draw).uniform(0.0, 1.0) * seconds[stage])
        os.killpg(process.pid, signal.SIGKILL)
    sh("python -m pipeline.repro", clone)
    assert finals(clone) == wanted, stage
    assert not list(clone.glob("artifacts/**/.*.partial"))


FILLED = """
kept=$(mktemp -d) && cp -a "$1/." "$kept" && mount -t tmpfs -o size=2g none "$1" && cp -a "$kept/." "$1" || exit 77
used=$(du -sk "$1" | cut -f1) && mount -o remount,size=$((used + 4))k "$1" || exit 77
head -c 1G /dev/zero > "$1/.fill" 2> /dev/null
eval "$2" > "$kept/log" 2>&1
code=$?
grep -v '^warning' "$kept/log" | tail -n 1
rm "$1/.fill" && mount -o remount,size=2g "$1" && eval "$2" > "$kept/log" 2>&1 || { cat "$kept/log"; code=99; }
cp -a "$1/." "$kept/../after"
rm -rf "$kept"
exit $code
"""


def command_of(clone: Path, stage: str) -> str:
    """What DVC would run for a stage."""
    name, _, key = stage.partition("@")
    text = sh(f"dvc repro --dry --force --single-item {stage}", clone)
    (line,) = [line for line in text.splitlines() if line.startswith("> ")]
    assert f"stages.{name}" in line and key.split("-")[0] in line
    return line.removeprefix("> ")


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    clone: Path, wanted: dict[str, str], tmp_path: Path, stage: str
) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a user mount a file system of their own (unshare -rm)")
    folder, command = STAGES[stage], command_of(clone, stage)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": "", "TMPDIR": str(tmp_path)}
    (tmp_path / "after").mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", FILLED, "bash", folder, command],
        cwd=clone, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this system does not let a user mount a file system of their own (unshare -rm)")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.startswith("error: the disk is full: "), done.stdout
    assert done.stdout.count("\n") == 1
    found = {
        f"{folder}/{file.relative_to(tmp_path / 'after')}": sha256_file(file)
        for file in (tmp_path / "after").rglob("*")
        if file.is_file()
    }
    assert {name: found.get(name) for name in wanted if name.startswith(f"{folder}/")} == {
        name: each for name, each in wanted.items() if name.startswith(f"{folder}/")
    }
