"""The newest checkpoint of a run, from clone to clone through DVC's remote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dvc_objects.fs.local import LocalFileSystem
from dvc_objects.fs.memory import MemoryFileSystem
from support import ROOT as CHECKOUT
from support import preference_rows, run_module

from pipeline.competitions.task import Competition
from pipeline.files import sha256_file
from pipeline.jobs.checkpoints import Journeys, run_of, travelling
from pipeline.training.checkpoint import ROOT

KEY, OTHER = "a" * 16, "b" * 16


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder as DVC's remote; the working directory is a clone beside it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    return SimpleNamespace(fs=LocalFileSystem(), path=str(tmp_path / "remote"))


def write(run: str, key: str = KEY, part: str = "run0", text: str = "newest") -> Path:
    file = ROOT / f"{run}-{key}" / f"{part}-state.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)
    return file


def files(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def test_the_newest_is_what_the_other_clone_gets(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    journeys = Journeys(remote, "siamese-fold1")
    journeys.bring()
    assert not Path(remote.path).exists()  # there is nothing yet
    write("siamese-fold1", text="older")
    write("siamese-fold10", text="another fold's")
    journeys.bring()
    write("siamese-fold1")
    write("siamese-fold1", part="run1")
    journeys.bring()
    wanted = {f"siamese-fold1-{KEY}/{part}-state.safetensors": "newest" for part in ("run0", "run1")}
    assert files(Path(remote.path) / "checkpoints") == wanted
    assert not list(ROOT.glob(".*"))
    monkeypatch.chdir("../two")
    Journeys(remote, "siamese-fold1").fetch()
    assert files(ROOT) == wanted
    write("siamese-fold1", text="its own")
    Journeys(remote, "siamese-fold1").fetch()
    assert files(ROOT)[f"siamese-fold1-{KEY}/run0-state.safetensors"] == "its own"


def test_what_has_not_changed_does_not_travel_again(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    journeys, sent = Journeys(remote, "judge-fold0"), []
    put = LocalFileSystem.put_file
    monkeypatch.setattr(LocalFileSystem, "put_file", lambda fs, *given: (sent.append(given), put(fs, *given)))
    write("judge-fold0")
    write("judge-fold0", part="run1")
    journeys.bring()
    journeys.bring()
    assert len(sent) == 2
    write("judge-fold0", part="run1", text="newer")
    journeys.bring()
    assert len(sent) == 3


def test_one_of_other_settings_goes_when_a_new_one_comes_and_all_at_the_end(remote: Any) -> None:
    write("judge-fold1", OTHER)
    Journeys(remote, "judge-fold1").bring()
    (ROOT / f"judge-fold1-{OTHER}").rename(ROOT / "gone")
    write("judge-fold1", KEY)
    write("judge-fold10", KEY)
    Journeys(remote, "judge-fold10").bring()
    journeys = Journeys(remote, "judge-fold1")
    journeys.bring()
    kept = {f"judge-fold{fold}-{KEY}/run0-state.safetensors" for fold in (1, 10)}
    assert set(files(Path(remote.path) / "checkpoints")) == kept
    journeys.end()
    assert set(files(Path(remote.path) / "checkpoints")) == {f"judge-fold10-{KEY}/run0-state.safetensors"}


def test_it_travels_while_the_stage_runs_and_is_forgotten_behind_its_result(
    remote: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PODIUM_TRAVEL_SECONDS", "0.01")
    away = threading.Event()
    put = LocalFileSystem.put_file

    def failing(fs: Any, *given: str) -> None:
        if not away.is_set():
            away.set()
            raise OSError("no route\nto host")
        put(fs, *given)

    monkeypatch.setattr(LocalFileSystem, "put_file", failing)
    there = Path(remote.path) / "checkpoints" / f"judge-fold0-{KEY}" / "run0-state.safetensors"
    with pytest.raises(KeyboardInterrupt), travelling(remote, "finetune@judge-0"):
        write("judge-fold0")
        while not there.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert there.exists()  # it was stopped
    assert capsys.readouterr().out == "DVC's remote: the checkpoint stays here for now: no route to host\n"
    with travelling(remote, "finetune@judge-0"):
        pass
    assert not there.exists()
    with travelling(remote, "stack"):
        pass


def test_a_stages_run_has_the_name_of_its_checkpoint() -> None:
    asked = {"finetune@judge-12": "judge-fold12", "distil@a_b-0": "a_b-fold0", "pretrain@bert": "pretrain@bert"}
    asked |= {"refit@judge": "judge-refit", "stack": None, "start": None, "teach@a-b-0": None}
    assert {stage: run_of(stage) for stage in asked} == asked


@pytest.mark.slow
def test_a_fold_that_goes_on_in_another_clone_ends_with_the_bits_of_one_left_alone(
    remote: Any, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from networks import decoder, ready, start_of  # torch is slow to load

    stage, always = ["stages.finetune", "--member", "judge", "--fold", "0"], {"PODIUM_CHECKPOINT_SECONDS": "0"}
    one, two = Path().absolute(), Path("../two").absolute()
    artifacts = ready(one, preference_rows(60), lmsys, np.repeat([0, 1, -1], [12, 40, 8]), backbones)
    training = {"epochs": 4, "batches": {"rows_per_step": 4, "tokens_per_batch": 512}, "dropout": 0.1, "ema": 0.1}
    start_of("judge", decoder(training, "nf4", lora={"rank": 4}), lmsys, artifacts)
    for folder in (two, two.parent / "alone"):
        shutil.copytree(artifacts, folder / artifacts.name)
    process = subprocess.Popen(
        [sys.executable, "-m", *stage], env=os.environ | always | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    journeys = Journeys(remote, "judge-fold0")
    while not journeys.sent:
        journeys.bring()
    process.kill()
    process.wait()
    monkeypatch.chdir(two)
    Journeys(remote, "judge-fold0").fetch()
    found = []
    for folder in (two, two.parent / "alone"):
        done = run_module(*stage, cwd=folder, **always)
        assert done.returncode == 0, done.stderr
        assert ("goes on after step" in done.stdout) == (folder == two)
        parts = [folder / "artifacts" / part for part in ("members", "oof", "receipts")]
        made = [file for part in parts for file in part.rglob("*") if file.is_file()]
        found.append({str(file.relative_to(folder)): sha256_file(file) for file in made})
    assert found[0] == found[1]


def test_a_store_of_objects_will_do(remote: Any) -> None:
    journeys = Journeys(SimpleNamespace(fs=MemoryFileSystem(global_store=False), path="/bucket/podium"), "judge-fold0")
    assert journeys.there() == []
    file = write("judge-fold0")
    journeys.bring()
    assert journeys.there() == [f"/bucket/podium/checkpoints/judge-fold0-{KEY}"]
    shutil.rmtree(ROOT)
    journeys.fetch()
    assert file.read_text() == "newest"
    journeys.end()
    assert journeys.there() == []
