"""`make repro` beside another build, and ended by Ctrl-C: one line, whoever was at work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support import ROOT, error_line, run_module

from pipeline import resources
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.repro import jobs_of
from pipeline.settings.finetuning import NetworkSettings

SLOW = """
import time
from pathlib import Path
from pipeline.stage import stage
with stage("demo"):
    Path("begun").touch()
    time.sleep(120)
"""
"""In place of the first stage."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout whose first stage takes two minutes."""
    target = tmp_path_factory.mktemp("project") / "podium"
    listed = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        ":!tests",
        ":!docs",
        ":!benchmarks",
    ]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    (target / ".venv").symlink_to(ROOT / ".venv")
    (target / "stages" / "demo.py").write_text(SLOW)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    return target


@contextmanager
def at_work(project: Path, *module: str, shell: str = "/bin/bash") -> Iterator[subprocess.Popen[str]]:
    """`python -m MODULE` in a session of its own, once its first stage has begun."""
    (project / "begun").unlink(missing_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": "", "DVC_NO_ANALYTICS": "1", "SHELL": shell}
    command = [sys.executable, "-m", *module]
    process = subprocess.Popen(
        command, cwd=project, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            if (project / "begun").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert (project / "begun").exists(), process.communicate()
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/sh"])
def test_ctrl_c_in_a_stage_is_one_line(project: Path, shell: str) -> None:
    with at_work(project, "pipeline.repro", shell=shell) as process:
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "stopped; run `make repro` again: it goes on where it was\n"
    assert "Running stage 'demo'" in out
    assert out.startswith("settings   fine     params.yaml")


@pytest.mark.parametrize("module", [("pipeline.repro",), ("dvc", "repro")])
def test_a_second_build_says_who_is_at_work(project: Path, module: tuple[str, ...]) -> None:
    params = (project / "params.yaml").read_bytes()
    with at_work(project, *module) as process:
        second = run_module("pipeline.repro", "cpu", "", "", cwd=project, PYTHONPATH="")
    line = error_line(second)
    assert line.startswith(f"error: this folder: process {process.pid} is building here already, since 20"), line
    assert second.stdout == ""
    assert (project / "params.yaml").read_bytes() == params  # no preset is laid under a running build


def test_ctrl_c_before_a_stage_begins_is_one_line(project: Path) -> None:
    script = "import stages; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "stopped; run `make repro` again: it goes on where it was\n"


@pytest.mark.parametrize("jobs", ["0", "two", "-1", "1.5"])
def test_jobs_is_a_whole_number(jobs: str) -> None:
    with pytest.raises(PodiumError, match=f'^JOBS: expected a whole number from 1 on, found "{jobs}"$'):
        jobs_of(jobs, load_params(ROOT / "params.yaml"))


def test_a_machine_feeds_as_many_stages_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    params, facts = load_params(ROOT / "params.yaml"), {"bert": {"parameters": 10**8}}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr(resources, "memory", lambda: ("memory", 64 * 10**9))
    monkeypatch.setattr(resources, "host_memory", lambda: 64 * 10**9)
    assert resources.places(replace(params, threads=2), {}) == 8
    assert resources.places(replace(params, threads=16), {}) == resources.places(replace(params, threads=64), {}) == 1
    assert resources.places(replace(params, threads=1), {}) == 16
    assert resources.places(replace(params, threads=1), facts) == 15  # 64 GB hold 15 times 2.5 and 1.6 GB
    monkeypatch.setattr(resources, "memory", lambda: ("GPU", 24 * 10**9))
    assert resources.places(replace(params, threads=1), facts) == 16
    siamese = params.members["siamese"]
    assert isinstance(siamese, NetworkSettings)
    siamese = replace(siamese, training=replace(siamese.training, devices=4))
    wide = replace(params, threads=1, members=params.members | {"siamese": siamese})
    assert resources.places(wide, facts) == 6  # of four processes each
    monkeypatch.setattr(resources, "memory", lambda: ("memory", 64 * 10**9))
    assert resources.places(wide, facts) == 3


def test_cards_are_those_that_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '16000\\n15000\\n14000\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resources.cards() == 3 and resources.memory() == ("GPU", 16000 * 2**20)
    for shown, count in {"2, 0": 2, "": 0, "-1": 0, "1": 1, "0,1,2,3": 3}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert resources.cards() == count
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert resources.cards() == 0 and resources.memory()[0] == "memory"
