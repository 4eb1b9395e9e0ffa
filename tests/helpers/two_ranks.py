"""What each rank of a run on two devices computes; tests/training/test_ranks.py is the first of them itself."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from learners import grads, learner_of
from torch import Tensor, distributed

from pipeline.competitions.task import Competition
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device
from pipeline.training.devices.ranks import own_share
from pipeline.training.gradients import Learner, Shown, gradients
from pipeline.training.loop import TrainingRun, fit
from pipeline.training.objectives.objective import Batch
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.prior import Prior
from pipeline.training.state import Record

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "encoder": ("encoder", {}),
    "encoder, bf16": ("encoder", {"precision": "bf16"}),
    "attack on the weights": ("encoder", {"awp": {}}),
    "attack on the weights, beside": ("encoder", {"awp": {"clean": True}}),
    "attack on the table": ("encoder", {"fgm": {"on": "table"}}),
    "attack on each row's words": ("encoder", {"fgm": {"radius": 0.1}}),
    "right rows count less": ("encoder", {"dsgd": {}}),
    "adapters": ("decoder", {}),
    "adapters, nf4": ("decoder", {}),
    "a single row": ("encoder", {"awp": {"clean": True}}),
}
STEPS = 6


class Stop(Exception):
    """Ends a run in the middle."""


SEEDS: list[int] = []
"""Of the noise of an interrupted run's steps, one for each batch."""


class Until(Supervised):
    """Rows that end the run when its fourth step begins."""

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        if step == 3:
            raise Stop
        SEEDS.append(torch.initial_seed())
        return super().batch(rows, step)


class Measured(NamedTuple):
    """What one rank has found, or a process that has no other."""

    first: dict[str, tuple[dict[str, Tensor], Shown]]
    """Of each case the gradients of its first step, and what that shows."""
    record: Record
    """Of a run of six steps."""
    weights: dict[str, dict[str, Tensor]]
    """At its end, and at that of a run with dropout: `whole`, or interrupted and `resumed`."""
    shares: list[int]
    """Rows of the first step that this rank has computed."""
    seeds: list[int]
    """Of the noise of three steps."""


def learner(backbones: Path, competition: Competition, case: str, budget: int = 256, **training: Any) -> Learner:
    kind, asked = CASES[case]
    precision = "nf4" if case.endswith("nf4") else "fp32"
    made = learner_of(backbones, competition, kind, budget, 16, asked | training, precision)
    share = own_share()
    assert isinstance(made.objective, Supervised)
    device = Device("cpu", made.settings.precision, share)
    return replace(made, device=device, objective=replace(made.objective, devices=share.ranks))


def first_step(one: Learner, rows: list[np.ndarray]) -> tuple[dict[str, Tensor], Shown]:
    torch.manual_seed(1)
    shown = gradients(one, rows, 0, 0.5)
    return grads(one.network), shown


def run_of(one: Learner, folder: Path, objective: Supervised | None = None) -> tuple[Record, dict[str, Tensor]]:
    """The loop's whole run, under the guard and with an inner slice."""
    learned = one.objective
    assert isinstance(learned, Supervised)
    asked = (one.network, objective or learned, one.settings, one.device, Checkpoint(folder), "x")
    evaluate = lambda: learned.score(one.network, one.device.share)  # noqa: E731
    run = TrainingRun(*asked, evaluate=evaluate, prior=Prior(learned.family, learned.labels))
    record = fit(run).record
    return record, {name: each.detach().clone() for name, each in one.network.named_parameters()}


def measured(backbones: Path, competition: Competition, folder: Path) -> Measured:
    os.environ["PODIUM_CHECKPOINT_SECONDS"] = "0"
    first = {}
    for case in CASES:
        one = learner(backbones, competition, case)
        rows = [np.array([3])] if case == "a single row" else one.objective.epoch(0)[0]
        first[case] = first_step(one, rows)
    plain = {"epochs": 3, "inner": 0.1}
    record, last = run_of(learner(backbones, competition, "encoder", **plain), folder / "run")
    noisy = plain | {"dropout": 0.2, "ema": 0.2}
    _, whole = run_of(learner(backbones, competition, "encoder", **noisy), folder / "whole")
    cut = learner(backbones, competition, "encoder", **noisy)
    SEEDS.clear()
    try:
        run_of(cut, folder / "cut", Until(**vars(cut.objective)))
        raise AssertionError("it was not interrupted")
    except Stop:
        pass
    if distributed.is_initialized():
        distributed.barrier()  # both have ended before they begin again
    _, resumed = run_of(learner(backbones, competition, "encoder", **noisy), folder / "cut")
    one = learner(backbones, competition, "encoder")
    shares = [len(each) for each in own_share().of(one.objective.epoch(0)[0])]
    return Measured(first, record, {"last": last, "whole": whole, "resumed": resumed}, shares, SEEDS[:])


def join(rank: int, folder: Path) -> None:
    """Joins the two, who find each other by a file in `folder`."""
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = distributed.FileStore(str(folder / "ranks"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)


def second(folder: Path, pipe: Connection, backbones: Path, competition: Competition) -> None:
    """The second rank: sends what it has measured."""
    join(1, folder)
    pipe.send(measured(backbones, competition, folder))
    distributed.destroy_process_group()
    pipe.recv()  # tensors are sent as long as their process lives
