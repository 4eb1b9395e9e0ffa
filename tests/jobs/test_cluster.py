"""`RAY_ADDRESS=... make repro`: what is refused before anything is placed, and two machines with a clone each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from clones import sh
from support import ROOT

from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.jobs.cluster import check_here, check_machines, cluster
from pipeline.jobs.places import Places
from pipeline.ledger.history import dvc_repository

DVC_YAML = """
stages:
  demo: {cmd: python stage.py out/demo, outs: [out/demo]}
  prepare: {cmd: python stage.py out/prepare, deps: [out/demo], outs: [out/prepare]}
  folds: {cmd: python stage.py out/folds, deps: [out/demo], outs: [out/folds]}
  start:
    foreach: [words, siamese]
    do: {cmd: "python stage.py out/start/${item}", deps: [out/prepare, stage.py], outs: ["out/start/${item}"]}
  pretrain:
    foreach: [bert]
    do:
      cmd: python stage.py out/pretrained/${item} metrics/${item}.json
      deps: [out/folds]
      outs: ["out/pretrained/${item}"]
      metrics: ["metrics/${item}.json": {cache: false}]
  finetune:
    matrix: {model: [words, siamese], fold: [0, 1]}
    cmd: python stage.py out/fold/${item.model}${item.fold}
    deps: ["out/start/${item.model}", out/folds]
    outs: ["out/fold/${item.model}${item.fold}"]
  oof: {cmd: python stage.py out/oof, deps: [out/fold, metrics/bert.json], outs: [out/oof]}
"""
STAGE = """
import os, shutil, sys, time
from pathlib import Path
name = Path(sys.argv[1]).name
kept = Path("work/checkpoints") / f"{name[:-1]}-fold{name[-1]}-{'0' * 16}" / "state.safetensors"
began = int(kept.read_text()) if kept.exists() else 0
print(f"{sys.argv[1]} begins at {began} in {Path.cwd().name}", flush=True)
for step in range(began, 60 if "fold/" in sys.argv[1] else 0):
    time.sleep(0.05)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.with_suffix(".partial").write_text(str(step))
    kept.with_suffix(".partial").replace(kept)
shutil.rmtree(kept.parent, ignore_errors=True)
for file in map(Path, sys.argv[1:]):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"file": "%s"}' % file)
"""
NODES = """
import os, sys
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
from ray.cluster_utils import Cluster
def about(clone): return {"num_cpus": 1, "object_store_memory": 80 * 2**20, "env_vars": {"PODIUM_CLONE": clone}}
nodes = Cluster(initialize_head=True, head_node_args=about(sys.argv[1]) | {"include_dashboard": False})
other = nodes.add_node(**about(sys.argv[2]))
print(nodes.address, flush=True)
if sys.stdin.readline():
    nodes.remove_node(other, allow_graceful=False)
sys.stdin.read()
nodes.shutdown()
"""
COMMIT = "git add -A && git -c user.name=x -c user.email=x@x commit -qm one"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project of small stages with a folder as DVC's remote; the working directory is there."""
    target = tmp_path / "head"
    for name in (
        "pipeline",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "params.yaml",
        "requirements.lock",
    ):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target / name)
    (target / "dvc.yaml").write_text(DVC_YAML)
    (target / "stage.py").write_text(STAGE)
    with (target / ".gitignore").open("a") as ignored:
        ignored.write("/out/\n")
    (target / ".venv").symlink_to(ROOT / ".venv")
    sh(f"git init -q && dvc remote add -q --default here {tmp_path / 'remote'} && {COMMIT}", target)
    monkeypatch.chdir(target)
    return target


def test_a_clean_tree_with_a_remote_gives_its_commit(project: Path) -> None:
    with dvc_repository() as repository:
        assert check_here(repository) == sh("git rev-parse HEAD", project).strip()


def test_without_a_remote_it_is_refused(project: Path) -> None:
    sh("dvc remote remove -q here", project)
    with (
        dvc_repository() as repository,
        pytest.raises(PodiumError, match=r"^dvc: results .* `dvc remote add --default"),
    ):
        check_here(repository)


def test_what_is_not_committed_is_refused_but_for_what_a_build_writes(project: Path) -> None:
    (project / "metrics").mkdir()
    for name in ("metrics/cv.json", "dvc.lock"):
        (project / name).write_text("{}")
    with dvc_repository() as repository:
        assert check_here(repository)
        (project / "pipeline" / "new.py").write_text("X = 1\n")
        with pytest.raises(PodiumError, match=r"^pipeline/new.py: not committed; .*`git commit` first$"):
            check_here(repository)


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "somewhere", "host:port"])
def test_an_address_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(PodiumError, match=r"^RAY_ADDRESS: expected host:port .*, found"), cluster("", load_params()):
        pass


@pytest.mark.parametrize(("devices", "cards"), [(3, True), (5, False)])
def test_a_fold_that_no_machine_has_the_devices_for_is_refused(devices: int, cards: bool) -> None:
    alive = {"Alive": True, "NodeManagerHostname": "box"}
    nodes = [alive | {"Resources": {"CPU": 8.0, "GPU": 2.0}}, alive | {"Resources": {"CPU": 4.0, "GPU": 4.0}}]
    told = rf"params.yaml: devices: {devices}: no machine of the cluster offers so many GPUs, or {2 * devices} cores"
    with pytest.raises(PodiumError, match=told):
        check_machines(SimpleNamespace(nodes=lambda: nodes), "", Places(cards, cores=2), devices)


def test_an_address_where_nobody_listens_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(PodiumError, match=r"^RAY_ADDRESS: 127.0.0.1:\d+: .*refused"), cluster("", load_params()):
            pass


@pytest.fixture
def other(project: Path) -> Path:
    """The clone of the other machine."""
    target = project.parent / "other"
    sh(f"git clone -q . {target}", project)
    (target / ".venv").symlink_to(ROOT / ".venv")
    return target


@pytest.fixture
def nodes(project: Path, other: Path) -> Iterator[subprocess.Popen[str]]:
    """A Ray of two machines, the first of them the driver's; each has its clone. A line takes the second away."""
    with subprocess.Popen(
        [sys.executable, "-c", NODES, str(project), str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PODIUM_TRAVEL_SECONDS": "0.2"}, text=True,
    ) as nodes:  # fmt: skip
        assert nodes.stdin
        yield nodes
        nodes.stdin.close()


@pytest.fixture
def address(nodes: subprocess.Popen[str]) -> str:
    assert nodes.stdout
    return nodes.stdout.readline().strip()


def repro(project: Path, address: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": "", "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.repro"], cwd=project, env=environment | {"DVC_NO_ANALYTICS": "1"},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def at_work(folder: Path, process: subprocess.Popen[str]) -> psutil.Process:
    """The process of a fold in a clone, once it has got somewhere."""
    while process.poll() is None:
        for each in psutil.process_iter(["cmdline", "cwd"]):
            command = each.info["cmdline"] or []
            if each.info["cwd"] != str(folder) or "stage.py" not in command:
                continue
            asked = command[command.index("stage.py") + 1]
            if asked.startswith("out/fold"):
                run = f"{asked[9:-1]}-fold{asked[-1]}-{'0' * 16}"
                kept = folder / "work" / "checkpoints" / run / "state.safetensors"
                while each.is_running() and not (kept.is_file() and int(kept.read_text())):
                    time.sleep(0.02)
                return each
        time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_a_worker_and_the_driver_are_killed_and_nothing_runs_twice(project: Path, other: Path, address: str) -> None:
    process = repro(project, address)
    fold = at_work(other, process)
    work = fold.parent()
    assert work is not None and "pipeline.jobs.work" in work.cmdline()
    work.parent().kill()  # the Ray worker
    psutil.wait_procs([fold, work], timeout=30)
    assert not fold.is_running() and not work.is_running()
    assert process.stdout  # the fold is placed on its machine again, and goes on from its checkpoint
    assert any("begins at" in line and "begins at 0 " not in line and "in other" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGKILL)  # the driver
    process.communicate()
    process = repro(project, address)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, out + errors
    assert "Running stage" not in out  # `dvc repro` at the end finds all done
    assert not {"demo", "prepare", "folds"} & {line.split(":")[0] for line in out.splitlines() if "begins at" in line}
    for file in (project / "out").rglob("*"):
        assert file.is_dir() or json.loads(file.read_text()) == {"file": str(file.relative_to(project))}
    assert (project / "metrics" / "bert.json").is_file()
    (project / "stage.py").write_text(STAGE + "\n")
    sh(COMMIT, project)
    process = repro(project, address)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "other: expected commit " in errors and errors.count("\n") == 1, errors


@pytest.mark.slow
def test_a_fold_whose_machine_is_gone_goes_on_from_its_last_checkpoint_on_another(
    project: Path, other: Path, nodes: subprocess.Popen[str], address: str
) -> None:
    process = repro(project, address)
    fold = at_work(other, process)
    asked = fold.cmdline()[-1]
    kept = project.parent / "remote" / "checkpoints" / f"{asked[9:-1]}-fold{asked[-1]}-{'0' * 16}" / "state.safetensors"
    while fold.is_running() and not (kept.is_file() and int(kept.read_text())):
        time.sleep(0.02)
    assert nodes.stdin
    print("gone", file=nodes.stdin, flush=True)
    psutil.wait_procs([fold], timeout=60)
    assert not fold.is_running()
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, out + errors
    begun = [line.split(" begins at ")[1] for line in out.splitlines() if f"{asked} begins at" in line]
    assert begun[-1].endswith("in head") and int(begun[-1].split()[0]) > 0, out  # lines of the other may be lost
    assert not list((project.parent / "remote" / "checkpoints").rglob("*.safetensors"))
    for file in (project / "out").rglob("*"):
        assert file.is_dir() or json.loads(file.read_text()) == {"file": str(file.relative_to(project))}
