"""The prepare stage as a user runs it: its summary, its one-line errors, a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from competition_files import (
    LMSYS,
    WINNERS,
    preference,
    train_row,
)
from support import ROOT

from pipeline.ingest.prepare import prepare


def workplace(folder, source, competition="lmsys"):
    """A folder with a params.yaml that points at `source`, for a stage to run in."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"] = {"path": str(source), "competition": str(competition)}
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return folder


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PODIUM_DEBUG", None)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


STAGE = [sys.executable, "-m", "stages.prepare"]


def test_the_stage_says_what_it_found(tmp_path):
    folder = workplace(tmp_path / "work", preference(tmp_path / "data"))
    done = run(STAGE, folder)
    assert (done.returncode, done.stderr) == (0, "")
    shares = ", ".join(f"{name} 33.3%" for name in WINNERS)
    lengths = "prompt 1 (at most 1), a 1 (at most 1), b 1 (at most 1)"
    assert done.stdout == f"{LMSYS.name}: 6 train and 2 test rows; {shares}; median characters: {lengths}\n"
    assert os.listdir(folder / "artifacts") == ["competition"]


def test_the_stage_ends_with_one_line(tmp_path):
    source = preference(tmp_path / "data", [train_row("q", "broken")])
    done = run(STAGE, workplace(tmp_path / "work", source))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {source / 'train.csv'}: row 1 ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path / "work/artifacts") == []


def can_mount():
    if not shutil.which("unshare"):
        return False
    return (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


# 16k: the disk fills up in the footer of the parquet file, which polars calls a transport error.
@pytest.mark.parametrize(("size", "rows"), [("16k", 4), ("400k", 600)])
def test_a_full_disk(tmp_path, size, rows):
    if not can_mount():
        pytest.skip("this system does not let a user mount a file system of their own (unshare -rm)")
    noise = [os.urandom(500).hex() for _ in range(rows)]
    source = preference(
        tmp_path / "data",
        [train_row(f"r{i}", f'["{text}"]') for i, text in enumerate(noise)],
        [[f"t{i}", *[f'["{text[::-1]}"]'] * 3] for i, text in enumerate(noise)],
    )
    folder = workplace(tmp_path / "work", source)
    (folder / "artifacts").mkdir()
    script = f'mount -t tmpfs -o size={size} none artifacts && "$@"; code=$?; ls -A artifacts; exit $code'
    done = run(["unshare", "-rm", "sh", "-c", script, "sh", *STAGE], folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the disk is full: ") and done.stderr.count("\n") == 1


def test_a_full_disk_is_no_fault_of_the_files(tmp_path, monkeypatch):
    source = preference(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.ingest.prepare.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(source, LMSYS, source / "out/competition")
    assert os.listdir(source / "out") == []
