"""`make repro JOBS=2` with small stages: side by side, failing, nothing stale, ended by Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from clones import sh
from rich.console import Console
from support import ROOT

from pipeline.config import Params, load_params
from pipeline.jobs.build import CORNER, Build
from pipeline.jobs.places import Places
from pipeline.jobs.show import Show
from pipeline.settings.finetuning import NetworkSettings

DVC_YAML = """
stages:
  demo: {cmd: python stage.py demo, outs: [out/demo]}
  prepare: {cmd: python stage.py prepare, deps: [out/demo], outs: [out/prepare]}
  folds: {cmd: python stage.py folds, deps: [out/demo], outs: [out/folds]}
  left: {cmd: python stage.py left right, deps: [out/prepare, stage.py], outs: [out/left]}
  right: {cmd: python stage.py right left, deps: [out/folds], params: [threads], outs: [out/right]}
  faulty: {cmd: python stage.py faulty, deps: [out/folds, fault], outs: [out/faulty]}
  last: {cmd: python stage.py last, deps: [out/left, out/right], outs: [out/last]}
  after: {cmd: python stage.py after, deps: [out/faulty], outs: [out/after]}
"""
STAGE = """
import sys, time
from pathlib import Path
from pipeline.errors import PodiumError
from pipeline.stage import stage
name, *others = sys.argv[1:]
with stage(name):
    Path(f"work/{name}-begun").touch()
    deadline = time.monotonic() + 60
    while not all(Path(f"work/{other}-begun").exists() for other in others):  # it runs only beside the others
        time.sleep(0.05)
        if time.monotonic() > deadline:
            raise PodiumError("alone")
    if name == "faulty" and Path("fault").read_text():
        raise PodiumError("fault: expected nothing, found something")
    Path("out").mkdir(exist_ok=True)
    Path(f"out/{name}").write_text(name)
    print(f"{name} has written", flush=True)
    if Path("slow").exists():
        Path(f"work/{name}-slow").touch()
        time.sleep(120)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages are small; two of them can only end while the other one runs."""
    target = tmp_path_factory.mktemp("jobs")
    for name in (
        "pipeline",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "params.yaml",
        "requirements.lock",
    ):
        (target / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target / name)
    (target / ".venv").symlink_to(ROOT / ".venv")
    (target / "work").mkdir()
    (target / "dvc.yaml").write_text(DVC_YAML)
    (target / "stage.py").write_text(STAGE)
    (target / "fault").write_text("something")
    with (target / ".gitignore").open("a") as ignored:
        ignored.write("/out/\n")
    sh("git init -q && git add -A && git -c user.name=x -c user.email=x@x commit -qm one", target)
    return target


def repro(project: Path, jobs: str = "2") -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": "", "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.repro", "", "", "", jobs], cwd=project, env=environment,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_stages_run_side_by_side_and_a_failing_one_stops_only_what_follows_from_it(project: Path) -> None:
    process = repro(project)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    assert errors == "error: faulty: fault: expected nothing, found something\nnot run: after\n", out
    assert {"left: left has written", "right: right has written"} <= set(out.splitlines())
    made = {file.name for file in (project / "out").iterdir()}
    assert made == {"demo", "prepare", "folds", "left", "right", "last"}
    (project / "fault").write_text("")
    text = sh("dvc repro", project)  # what was built side by side is done, as DVC sees it
    assert {line.split("'")[1] for line in text.splitlines() if line.startswith("Running")} == {"faulty", "after"}
    call = "print(build_side_by_side(2, load_params()), 'ray' in sys.modules)"
    script = f"import sys; from pipeline.config import load_params; from pipeline.jobs.build import *; {call}"
    assert sh(f'python -c "{script}"', project) == "({}, []) False\n"


def test_where_nothing_is_stale_one_line_says_so_unless_something_is_wrong(project: Path) -> None:
    sh("dvc repro", project)
    assert repro(project).communicate(timeout=60) == ("Data and pipelines are up to date.\n", "")
    wrong_jobs = repro(project, "two").communicate(timeout=60)
    assert wrong_jobs == ("", 'error: JOBS: expected a whole number from 1 on, found "two"\n')
    pipe = project / "external" / "pipe"
    pipe.parent.mkdir()
    os.mkfifo(pipe)  # DVC waits for ever for what one gives
    assert repro(project).communicate(timeout=60)[1].startswith("error: external/pipe: expected a file, found")
    pipe.unlink()
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(f"{params}theads: 1\n")  # of which DVC knows nothing
    errors = repro(project).communicate(timeout=60)[1]
    (project / "params.yaml").write_text(params)
    assert errors.startswith("error: ") and "theads" in errors, errors


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.slow
def test_a_build_that_is_stopped_or_killed_leaves_no_process(project: Path, ended_by: signal.Signals) -> None:
    for made in (project / ".dvc" / "cache", project / "work", project / "out"):
        shutil.rmtree(made, ignore_errors=True)
    (project / "dvc.lock").unlink(missing_ok=True)
    (project / "work").mkdir()
    (project / "slow").touch()
    process = repro(project)
    while not (project / "work" / "demo-slow").exists() and process.poll() is None:
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in each.name() for each in started)
    assert any("stage.py" in each.cmdline() for each in started)
    listening = [each for one in started for each in one.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {"127.0.0.1"}
    os.kill(process.pid, ended_by) if ended_by == signal.SIGKILL else os.killpg(process.pid, ended_by)
    _, errors = process.communicate(timeout=60)
    if ended_by == signal.SIGINT:
        assert process.returncode == 130, errors
        assert errors == "stopped; run `make repro` again: it goes on where it was\n"
    assert not psutil.wait_procs(started, timeout=10 if ended_by == signal.SIGINT else 90)[
        1
    ]  # Ray's agents look round rarely


def on_devices(devices: int) -> Params:
    """The demo's settings, with siamese and its backbone on so many devices."""
    params = load_params(ROOT / "params.yaml")
    siamese, bert = params.members["siamese"], params.backbones["bert"]
    assert isinstance(siamese, NetworkSettings) and bert.source != "none"
    siamese = replace(siamese, training=replace(siamese.training, devices=devices))
    bert = replace(bert, pretrain=replace(bert.pretrain, devices=devices))
    return replace(params, members=params.members | {"siamese": siamese}, backbones=params.backbones | {"bert": bert})


@pytest.mark.parametrize("home", ["", "node"])
def test_a_stage_asks_for_the_cards_that_it_trains_a_network_on(home: str) -> None:
    build = Build({}, None, on_devices(4), Places(cards=True, home=home), Show(Console()), set())
    asked = {"finetune@siamese-0": 4.0, "refit@siamese": 4.0, "pretrain@bert": 4.0, "finetune@judge-2": 1.0}
    asked |= {"pretrain@llama": 1.0, "pretrain@none": 0.0, "finetune@words-0": 0.0, "refit@words": 0.0, "stack": 0.0}
    asked |= dict.fromkeys(("start", "start_pretrain"), CORNER if home else 0.0)
    assert {name: build.cards_for(name) for name in asked} == asked
    without = replace(build, places=Places(cards=False, home=home))
    assert {without.cards_for(name) for name in asked} == {0.0}


@pytest.mark.parametrize(("places", "cores"), [(Places(False, most=3), 3), (Places(False, 2.0, home="x"), 8.0)])
def test_a_stage_of_several_devices_takes_as_many_places_as_there_are(
    places: Places, cores: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    class Task:
        def options(self, num_cpus: float, **_: object) -> Task:
            asked.append(num_cpus)
            return self

        def remote(self, *_: object) -> int:
            return len(asked)

    build = Build(
        {"finetune@siamese-0": frozenset(), "folds": frozenset()}, None, on_devices(4), places, Show(Console()), set()
    )
    vars(build)["task"] = Task()
    monkeypatch.setattr("pipeline.jobs.build.entries_of", lambda *_: {})
    monkeypatch.setattr("pipeline.jobs.build.on", lambda *_, **__: {})
    build.start("finetune@siamese-0")
    build.start("folds")
    assert asked == [cores, places.cores]
