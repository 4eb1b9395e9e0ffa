"""One fold over two devices: here two processes with gloo, of which the first is this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from failing_rank import failing
from networks import decoder, encoder, pretrain_settings, ready, start_of, training_settings
from support import ROOT, preference_rows, run_module
from torch import distributed
from two_ranks import CASES, STEPS, Measured, join, measured, second

from pipeline.competitions.task import Competition
from pipeline.errors import DivergedError, PodiumError
from pipeline.files import read_json, sha256_file, write_json
from pipeline.training.devices import launch
from pipeline.training.devices.launch import on_devices
from pipeline.training.devices.ranks import Share
from pipeline.training.pretrain import PretrainStart


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, backbones: Path, lmsys: Competition
) -> Iterator[tuple[Measured, Measured, Measured]]:
    """What a process alone finds, and each of two."""
    folder = tmp_path_factory.mktemp("two")
    before, threads = os.environ.copy(), torch.get_num_threads()
    here, there = get_context("spawn").Pipe()
    other = get_context("spawn").Process(target=second, args=(folder, there, backbones, lmsys), daemon=True)
    other.start()
    torch.set_num_threads(1)
    try:
        alone = measured(backbones, lmsys, tmp_path_factory.mktemp("alone"))
        join(0, folder)
        first = measured(backbones, lmsys, folder)
        found = here.recv()
        distributed.destroy_process_group()
        yield alone, first, found
    finally:
        other.kill()
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("case", CASES)
def test_the_first_steps_gradients_are_those_of_one_process(
    case: str, runs: tuple[Measured, Measured, Measured]
) -> None:
    (alone, shown), *ranks = (each.first[case] for each in runs)
    exact = 1e-6 if "bf16" not in case else 2e-3
    assert max(float(each.abs().max()) for each in alone.values()) > 10 * exact
    for gradients, its in ranks:
        assert gradients.keys() == alone.keys()
        assert max(float((gradients[name] - alone[name]).abs().max()) for name in alone) < exact
        for one, other in zip(its, shown, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=max(exact, 1e-5), rtol=1e-4)


def test_losses_scores_and_what_the_guard_sees_are_those_of_one_process(
    runs: tuple[Measured, Measured, Measured],
) -> None:
    alone, *ranks = (each.record for each in runs)
    assert len(alone.losses) == STEPS and len(alone.scores) == 3
    for record in ranks:
        assert np.allclose(record.losses, alone.losses, atol=1e-5)
        assert [step for step, _ in record.scores] == [step for step, _ in alone.scores]
        assert np.allclose([score for _, score in record.scores], [score for _, score in alone.scores], atol=1e-5)
        for one, other in zip(record.seen, alone.seen, strict=True):
            assert (one.rows, one.predicted) == (other.rows, other.predicted)
            assert np.allclose(one[1:6], other[1:6], atol=1e-4, rtol=1e-3)
    assert ranks[0] == ranks[1]  # to the last digit: they decide by it


def test_each_computes_its_share_and_all_end_with_the_same_weights(runs: tuple[Measured, Measured, Measured]) -> None:
    alone, *ranks = runs
    assert [sum(each.shares) for each in runs] == [8, 4, 4]
    for name, weights in ranks[0].weights.items():
        assert all(torch.equal(each, ranks[1].weights[name][key]) for key, each in weights.items())
    last = ranks[0].weights["last"]
    assert max(float((each - alone.weights["last"][key]).abs().max()) for key, each in last.items()) < 1e-4
    # Where there is dropout, each rank draws its own.
    assert set(ranks[0].seeds) == set(alone.seeds) and not set(ranks[0].seeds) & set(ranks[1].seeds)
    whole = ranks[0].weights["whole"]
    assert max(float((each - alone.weights["whole"][key]).abs().max()) for key, each in whole.items()) > 1e-4


def test_a_run_that_was_interrupted_ends_with_the_bits_of_one_that_was_not(
    runs: tuple[Measured, Measured, Measured],
) -> None:
    for each in runs:
        assert all(torch.equal(weight, each.weights["resumed"][name]) for name, weight in each.weights["whole"].items())


def test_every_row_is_one_ranks_and_has_its_place() -> None:
    batches = [np.array([7, 3, 9]), np.array([4]), np.array([8, 1])]
    parts = [Share(rank, 3).of(batches) for rank in range(3)]
    assert [[part.tolist() for part in each] for each in parts] == [[[7], [4], [8]], [[3], [1]], [[9]]]
    assert Share().of(batches)[0] is batches[0] or np.array_equal(Share().of(batches)[0], batches[0])


def test_what_several_devices_cannot_is_one_line() -> None:
    with pytest.raises(PodiumError, match=r"deni trains its children on one device, .*: leave out devices"):
        training_settings(devices=2, deni={})
    with pytest.raises(PodiumError, match=r"devices: expected at most batches.rows_per_step \(8\), .* found 9"):
        training_settings(devices=9)
    with pytest.raises(PodiumError, match="devices"):
        training_settings(devices=0)
    assert encoder({"devices": 2}).devices == 2 and encoder().devices == 1


def test_each_rank_has_a_gpu_of_those_that_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv(launch.CARDS, raising=False)
    assert launch._cards(2, "x")[:2] == ["0", "1"]
    monkeypatch.setenv(launch.CARDS, "5,1,7")
    assert launch._cards(3, "x") == ["5", "1", "7"]
    with pytest.raises(PodiumError, match=r"x: devices: expected at most 3, the GPUs of this machine, found 4"):
        on_devices(4, "x", failing, "nothing")


def ranks_of(process: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(process).children() if "spawn_main" in " ".join(each.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "kind", "expected"),
    [
        ("diverged", DivergedError, r"^the loss is not finite$"),
        ("disk", PodiumError, r"^the disk is full: .*No space left on device.*$"),
        ("defect", RuntimeError, r"(?s)^x: process 2 of 2:\nTraceback .*ValueError: broken\n$"),
        (
            "killed",
            PodiumError,
            r"^x: process 2 of 2 was ended by SIGKILL, and the others with it; run it again: .*$",
        ),
        ("left", PodiumError, r"^x: process 2 of 2 was ended with exit code 3, and the others with it; .*$"),
    ],
)
def test_what_ends_one_rank_ends_all_and_is_told(way: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        on_devices(2, "x", failing, way)
    assert not ranks_of(os.getpid())


ALWAYS = {"PODIUM_CHECKPOINT_SECONDS": "0", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def root(tmp_path: Path, backbones: Path, lmsys: Competition) -> Path:
    """A folder in which members of two devices can be trained, and a backbone on one and on two."""
    artifacts = ready(tmp_path, preference_rows(60), lmsys, np.repeat([0, 1, -1], [12, 40, 8]), backbones)
    training: dict[str, Any] = {"epochs": 4, "batches": {"rows_per_step": 4, "tokens_per_batch": 512}, "devices": 2}
    training |= {"dropout": 0.1, "ema": 0.1, "inner": 0.2, "evaluations_per_epoch": 3}
    start_of("siamese", encoder(training), lmsys, artifacts)
    start_of("judge", decoder(training | {"swap": True}, "nf4", lora={"rank": 4}), lmsys, artifacts)
    for devices in (1, 2):
        settings = pretrain_settings(epochs=2, head_steps=5, devices=devices)
        start = PretrainStart("pretrain bert", settings)
        write_json(tmp_path / f"{devices}.json", asdict(start))
    return tmp_path


def begun(root: Path, member: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """The stage of a member, once it has written a checkpoint of its own, and its ranks."""
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.finetune", "--member", member, "--fold", "0"], cwd=root,
        env=os.environ | ALWAYS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    states = root / "work" / "checkpoints"
    while process.poll() is None and not any(each.stat().st_mtime > began for each in states.glob("*/*.safetensors")):
        time.sleep(0.01)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    return process, ranks


def hashes(root: Path) -> dict[str, str]:
    folders = [root / "artifacts" / part for part in ("members", "oof", "receipts")]
    found = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(root)): sha256_file(file) for file in found}


@pytest.mark.slow
@pytest.mark.parametrize("member", ["siamese", "judge"])
def test_a_fold_whose_ranks_are_killed_ends_with_the_bits_of_one_left_alone(member: str, root: Path) -> None:
    stage = ["stages.finetune", "--member", member, "--fold", "0"]
    process, ranks = begun(root, member)
    ranks[1].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith(f"error: {member} fold 0: process 2 of 2 was ended by SIGKILL, and the")
    process, ranks = begun(root, member)
    process.kill()
    assert not psutil.wait_procs(ranks, timeout=30)[1]
    process, ranks = begun(root, member)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "stopped; run `make repro` again: it goes on where it was"
    assert not psutil.wait_procs(ranks, timeout=30)[1]
    done = run_module(*stage, cwd=root, **ALWAYS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("goes on after step") == 1  # one of both says it
    resumed = hashes(root)
    done = run_module(*stage, cwd=root, **ALWAYS)
    assert done.returncode == 0 and "goes on after step" not in done.stdout
    assert hashes(root) == resumed


@pytest.mark.slow
def test_a_backbone_is_pretrained_on_two_devices_as_on_one(root: Path) -> None:
    told = []
    for devices in (1, 2):
        (root / "artifacts" / "start_pretrain").mkdir(exist_ok=True)
        (root / f"{devices}.json").rename(root / "artifacts" / "start_pretrain" / "bert.json")
        done = run_module("stages.pretrain", "--backbone", "bert", cwd=root, **ALWAYS)
        assert done.returncode == 0, done.stderr
        told.append(read_json(root / "metrics" / "pretrain" / "bert.json"))
    one, two = told
    assert one["perplexity_before"] == two["perplexity_before"] > one["perplexity_after"]
    assert two["perplexity_after"] == pytest.approx(one["perplexity_after"], rel=0.05)  # other draws of dropout
