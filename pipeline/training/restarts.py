"""One fold model's way to its weights: the head first where that is asked for, the run under the guard, the run once
more where it came to nothing, and the mean of several runs.

A restart has a new seed for what is fresh, half the rate and a longer warmup; it begins from the backbone as it came.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PodiumError
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.classification import Classification
from pipeline.training.device import Device
from pipeline.training.forecast import forecast
from pipeline.training.guard import fruitless
from pipeline.training.loop import NOT_FINITE, fit
from pipeline.training.optim import backbone_name
from pipeline.training.seeds import seed_of
from pipeline.training.state import Record
from pipeline.training.techniques.averaging import add, put

SLOWER, LONGER, LONGEST = 0.5, 0.1, 0.4
"""Each restart has that share of the rate before it, and that much more warmup, up to a share of the steps."""
LATER = ("awp", "fgm", "smart", "proximal", "r_drop", "deni")
"""What the head does without while it learns alone."""
RARE = 1.0e-6
"""Rows added to each class, so that one that never occurs has a finite loss."""


@dataclass(frozen=True)
class Job:
    """What is to be trained, and on what."""

    build: Callable[[], nn.Module]
    """A network with fresh weights from torch's global generator, on the device."""
    learned: Classification
    judge: Classification | None
    """The inner slice."""
    settings: dict[str, Any]
    """`training` of a member."""
    attempts: int
    """The guard's `max_attempts`; 0 where none watches."""
    classes: int
    device: Device
    checkpoint: Checkpoint
    label: str


@dataclass(frozen=True)
class Trained:
    """A network that has gone its way."""

    network: nn.Module
    record: Record
    """Of the first run that came to something, or of the last attempt."""
    attempts: list[dict[str, Any]]
    """Every run that was begun: `run`, `attempt`, `rate`, `warmup`, `head` (its seed), `steps` done, `of` how many, and
    `stopped`, the guard's reason or None."""
    voters: list[dict[str, Tensor]] = field(default_factory=list)
    """Weights that answer beside the network's own (DENI)."""


def train(job: Job) -> Trained:
    """Trains `training.runs` networks from the same fresh weights and returns one with the mean of their weights.

    The guard restarts the first of them until it learns; the others go the way that succeeded, and are left out of the
    mean where they come to nothing.

    Raises: PodiumError where the loss was not finite in any attempt, or memory or disk are too small.
    """
    told: list[dict[str, Any]] = []
    voters: list[dict[str, Tensor]] = []
    network, record = _run(job, 0, 0, told, voters)
    way = 0
    while record.stopped and way + 1 < job.attempts:
        del network  # before the next one is loaded
        job.checkpoint.forget_tensors(_part(0, way))
        way += 1
        network, record = _run(job, 0, way, told, voters)
    if record.stopped and not (record.losses and math.isfinite(record.losses[-1])):
        raise PodiumError(f"{job.label}: {record.stopped}; {NOT_FINITE}")
    if record.stopped or job.settings["runs"] == 1:
        return Trained(network, record, told, voters)
    mean, count = add(_trained(network), {}, 1), 1
    for run in range(1, job.settings["runs"]):
        other, its = _run(job, run, way, told, [])
        if not its.stopped:
            count += 1
            mean = add(_trained(other), mean, count)
    put(_trained(network), mean)
    return Trained(network, record, told)


def retuned(settings: dict[str, Any], run: int, attempt: int) -> dict[str, Any]:
    """`training` for a run's attempt; that of the first run's first attempt is as it was given.

    Another run has other orders and dropout; another attempt has another head, a lower rate and a longer warmup.
    """
    slower, schedule, seeds = SLOWER**attempt, settings["schedule"], settings["seeds"]
    warmup = max(schedule["warmup"], min(LONGEST, schedule["warmup"] + LONGER * attempt))
    return settings | {
        "schedule": schedule | {"rate": schedule["rate"] * slower, "warmup": warmup},
        "head_rate": settings["head_rate"] and settings["head_rate"] * slower,
        "seeds": {
            "head": seed_of(seeds["head"], attempt) if attempt else seeds["head"],
            "order": seed_of(seeds["order"], run) if run else seeds["order"],
            "dropout": seed_of(seeds["dropout"], run) if run else seeds["dropout"],
        },
    }


def _run(
    job: Job, run: int, attempt: int, told: list[dict[str, Any]], voters: list[dict[str, Tensor]]
) -> tuple[nn.Module, Record]:
    settings = retuned(job.settings, run, attempt)
    learned = replace(job.learned, order=settings["seeds"]["order"])
    torch.manual_seed(seed_of(settings["seeds"]["head"]))
    network = job.build()
    if not run and not attempt:
        forecast(network, learned, settings, job.device, job.label, Path())
    if settings["head_first"]:
        _head_alone(network, job, learned, settings, f"{_part(run, attempt)}-head")

    def evaluate() -> float:
        assert job.judge is not None
        with job.device.forward():
            return job.judge.score(network)

    prior = np.bincount(learned.labels, minlength=job.classes) + RARE
    prior /= prior.sum()
    record = fit(
        network,
        learned,
        settings,
        job.device,
        job.checkpoint,
        job.label,
        evaluate if job.judge else None,
        _part(run, attempt),
        prior=prior if job.attempts else None,
        voters=voters,
    )
    if job.attempts and not record.stopped:
        best = min((score for _, score in record.scores), default=math.inf)
        inner = (best, -float(np.log(prior[job.judge.labels]).mean())) if job.judge else None
        record.stopped = fruitless(record.seen, -float((prior * np.log(prior)).sum()), inner)
    if record.stopped:
        voters.clear()  # of a run that has learned nothing
        again = attempt + 1 < job.attempts and not run
        print(f"warning: {job.label}: {record.stopped}; {'it starts again' if again else 'it is given up'}", flush=True)
    told.append(
        {
            "run": run,
            "attempt": attempt,
            "rate": settings["schedule"]["rate"],
            "warmup": settings["schedule"]["warmup"],
            "head": settings["seeds"]["head"],
            "steps": len(record.losses),
            "of": sum(len(learned.epoch(number)) for number in range(settings["epochs"])),
            "stopped": record.stopped,
        }
    )
    return network, record


def _head_alone(network: nn.Module, job: Job, learned: Classification, settings: dict[str, Any], part: str) -> None:
    """Trains what is not backbone; the backbone rests in evaluation mode, bit by bit as it was."""
    backbone, first = network.get_submodule(backbone_name(network)), settings["head_first"]
    learning = [each for each in backbone.parameters() if each.requires_grad]
    for each in learning:
        each.requires_grad_(False)
    schedule = {"rate": first["rate"], "warmup": LONGER, "decay": "linear"}
    alone = settings | {"epochs": first["epochs"], "schedule": schedule, "head_rate": None, "ema": 0.0, "swa": 1.0}
    alone |= dict.fromkeys(LATER)
    fit(network, learned, alone, job.device, job.checkpoint, f"{job.label}, head", part=part, resting=backbone)
    for each in learning:
        each.requires_grad_(True)


def _trained(network: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in network.named_parameters() if each.requires_grad}


def _part(run: int, attempt: int) -> str:
    return f"run{run}-attempt{attempt}"
