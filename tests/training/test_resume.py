"""A run that is killed and started again ends as one that was left alone, to the last byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import decoder, encoder, pretrain_settings, ready, start_of
from support import ROOT, preference_rows, run_module

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import sha256_file, write_json
from pipeline.training.checkpoint import Checkpoint, checkpoint
from pipeline.training.pretrain import PretrainStart
from stages import finetune

SMALL = {"rows_per_step": 4, "tokens_per_batch": 512}
EVERYTHING = {"epochs": 4, "batches": SMALL, "dropout": 0.1, "ema": 0.1, "inner": 0.2, "evaluations_per_epoch": 3}
KILLS = 6
ALWAYS = {"PODIUM_CHECKPOINT_SECONDS": "0", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def root(tmp_path: Path, backbones: Path, lmsys: Competition) -> Path:
    """A folder in which the stages can run: two backbones to pretrain, two members to fine-tune."""
    folds = np.repeat([0, 1, -1], [12, 40, 8])
    artifacts = ready(tmp_path, preference_rows(60), lmsys, folds, backbones)
    members = {
        # The last, averaged weights of the one, the best of the other.
        "siamese": encoder(EVERYTHING | {"layer_decay": 0.9, "inner": 0.0, "evaluations_per_epoch": 1}),
        "judge": decoder(EVERYTHING | {"swap": True}, lora={"rank": 4}, inference={"precision": "nf4", "swap": True}),
    }
    for name, settings in members.items():
        start_of(name, settings, lmsys, artifacts)
    for name, head_steps in (("bert", 10), ("llama", 0)):
        settings = pretrain_settings(epochs=3, head_steps=head_steps, batches=SMALL | {"rows_per_step": 8})
        write_json(artifacts / "start_pretrain" / f"{name}.json", asdict(PretrainStart(f"pretrain {name}", settings)))
    return tmp_path


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_left_alone(root: Path) -> None:
    jobs = ["finetune:siamese", "finetune:judge", "pretrain:bert", "pretrain:llama"]
    command = [sys.executable, str(ROOT / "tests/helpers/killed.py"), str(root), "1", str(KILLS), *jobs]
    done = subprocess.run(command, env=os.environ | ALWAYS, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for job, each in told.items():
        assert each["killed"] >= KILLS and each["ended"] >= 1, job
        assert each["differing"] == [], job
        assert each["resumed"] > 0, job
        assert each["files"] >= 5, job
    assert sum(each["killed"] for each in told.values()) >= 20


def hashes(root: Path) -> dict[str, str]:
    folders = [root / "artifacts" / part for part in ("members", "oof", "receipts")]
    found = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(root)): sha256_file(file) for file in found}


def test_the_stage_as_a_user_runs_it_goes_on_after_a_kill(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = ["stages.finetune", "--member", "siamese", "--fold", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", *stage], cwd=root, env=os.environ | ALWAYS, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    states = root / "work/checkpoints"
    while process.poll() is None and not list(states.glob("siamese-fold0-*/run0-attempt0-state.safetensors")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = run_module(*stage, cwd=root, **ALWAYS)
    assert done.returncode == 0, done.stderr
    assert "goes on after step" in done.stdout
    assert not list(states.glob("*/*"))
    resumed = hashes(root)
    monkeypatch.chdir(root)
    finetune.main("siamese", 0, None)
    assert "goes on after step" not in capsys.readouterr().out
    assert hashes(root) == resumed


def test_changed_settings_start_afresh_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupted(label: str, key: str) -> Any:
        with pytest.raises(KeyboardInterrupt), checkpoint(label, key) as state:
            found = state.load("train")
            state.save("train", {"w": torch.ones(2)}, {"done": 3})
            raise KeyboardInterrupt
        return found

    assert interrupted("words-fold1", "a" * 64) is None
    assert interrupted("words-fold10", "a" * 64) is None
    found = interrupted("words-fold1", "a" * 64)
    assert found[1] == {"done": 3} and torch.equal(found[0]["w"], torch.ones(2))
    assert capsys.readouterr().out == ""
    assert interrupted("words-fold1", "b" * 64) is None
    assert "words-fold1: settings, data or code changed since it was interrupted: it starts afresh" in (
        capsys.readouterr().out
    )
    # Another fold's is still there, and a run that ends well leaves nothing.
    with checkpoint("words-fold10", "a" * 64) as state:
        assert state.load("train") is not None
    assert not list(Path("work/checkpoints").glob("words-fold10-*"))


def test_a_second_process_on_the_same_fold_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with checkpoint("siamese-fold0", "a" * 64):
        with pytest.raises(PodiumError, match=rf"siamese-fold0: process {os.getpid()} is training it already"):
            checkpoint("siamese-fold0", "a" * 64).__enter__()
        with checkpoint("siamese-fold1", "a" * 64):
            pass
        with pytest.raises(PodiumError, match="is training it already"):
            finetune.main("siamese", 0, None)


@pytest.mark.parametrize("length", [0, 5, 100, -10])
def test_a_truncated_checkpoint_is_named_and_its_part_starts_afresh(
    length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = Checkpoint(tmp_path / "run")
    assert state.load("train") is None
    state.save("train", {"w": torch.arange(100.0)}, {"done": 7})
    file = tmp_path / "run" / "train-state.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    assert state.load("train") is None
    assert f"{file}: not readable (" in capsys.readouterr().out
    state.save("train", {"w": torch.arange(100.0)}, {"done": 8})
    assert state.load("train")[1] == {"done": 8}  # type: ignore[index]


def test_a_killed_write_leaves_the_old_state_and_is_cleared_away(tmp_path: Path) -> None:
    state = Checkpoint(tmp_path)
    state.save("train", {"w": torch.zeros(3)}, {"done": 1})
    (tmp_path / ".train-state.safetensors.12345.partial").write_bytes(b"half")
    assert state.load("train")[1] == {"done": 1}  # type: ignore[index]
    state.save("train", {"w": torch.zeros(3)}, {"done": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["train-state.safetensors"]


def test_checkpoints_are_rare_where_they_cost_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.training import checkpoint as module

    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.delenv("PODIUM_CHECKPOINT_SECONDS", raising=False)
    state = Checkpoint(tmp_path, saved=0.0)
    clock[0] = 29.0
    assert not state.due()
    clock[0] = 30.0
    assert state.due()
    state.cost = 10.0  # of a checkpoint: 5 % of the time may go into them
    clock[0] = 199.0
    assert not state.due()
    clock[0] = 200.0
    assert state.due()
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    clock[0] = 0.0
    assert state.due()
