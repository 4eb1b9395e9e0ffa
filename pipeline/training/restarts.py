"""One fold model's way to its weights: the head first where that is asked for, the run under the guard, the run once
more where it came to nothing, and the mean of several runs.

A restart has a new seed for what is fresh, half the rate and a longer warmup; it begins from the backbone as it came.
Every run begins with the constant predictor's answers (`prior_start`), so that no step is spent on unlearning answers
that come from nowhere; of a rare class that is most of what a short run can do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import DivergedError
from pipeline.models.network import start_at
from pipeline.settings.finetuning import HeadFirst, Training
from pipeline.settings.optimisation import RateSchedule, Seeds
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device
from pipeline.training.gradients import within_memory
from pipeline.training.guard import fruitless
from pipeline.training.loop import NOT_FINITE, Trained, TrainingRun, fit
from pipeline.training.objectives.multitask import Interleaved
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.optim import backbone_name
from pipeline.training.pooled_check import check_pooled_states
from pipeline.training.prior import Prior
from pipeline.training.progress import forecast
from pipeline.training.seeds import seed_of
from pipeline.training.state import Record
from pipeline.training.techniques.averaging import add, put

SLOWER, LONGER, LONGEST = 0.5, 0.1, 0.4
"""Each restart has that share of the rate before it, and that much more warmup, up to a share of the steps."""


@dataclass(frozen=True)
class Job:
    """What is to be trained, and on what."""

    build: Callable[[], nn.Module]
    """A network with fresh weights from torch's global generator, on the device."""
    learned: Supervised | Interleaved
    judge: Supervised | None
    """The inner slice."""
    settings: Training
    attempts: int
    """The guard's `max_attempts`; 0 where none watches."""
    device: Device
    checkpoint: Checkpoint
    label: str


@dataclass(frozen=True)
class FineTuned:
    """A network that has learned, or was given up."""

    network: nn.Module
    record: Record
    """Of the first run that came to something, or of the last attempt."""
    attempts: list[dict[str, Any]]
    """Every run that was begun: `run`, `attempt`, `rate`, `warmup`, `head` (its seed), `steps` done, `of` how many, and
    `stopped`, the guard's reason or None."""
    voters: list[dict[str, Tensor]]
    """Weights that answer beside the network's own (DENI)."""


def train(job: Job) -> FineTuned:
    """Trains `training.runs` networks from the same fresh weights and returns one with the mean of their weights.

    The guard restarts the first of them until it learns; the others go the way that succeeded, and are left out of the
    mean where they come to nothing.

    Raises: DivergedError where the loss was not finite in any attempt, PodiumError where memory or disk are too small.
    """
    attempts: list[dict[str, Any]] = []
    network, trained = _run(job, 0, 0, attempts)
    way = 0
    while trained.record.stopped and way + 1 < job.attempts:
        del network  # before the next one is loaded
        if job.device.share.leads:
            job.checkpoint.forget_tensors(_part(0, way))
        way += 1
        network, trained = _run(job, 0, way, attempts)
    record = trained.record
    if record.stopped and not (record.losses and math.isfinite(record.losses[-1])):
        raise DivergedError(f"{job.label}: {record.stopped}; {NOT_FINITE}")
    if record.stopped or job.settings.runs == 1:
        return FineTuned(network, record, attempts, trained.voters)
    mean, count = add(_learned_weights(network), {}, 1), 1
    for run in range(1, job.settings.runs):
        other, its = _run(job, run, way, attempts)
        if not its.record.stopped:
            count += 1
            mean = add(_learned_weights(other), mean, count)
    put(_learned_weights(network), mean)
    return FineTuned(network, record, attempts, [])


def retuned(settings: Training, run: int, attempt: int) -> Training:
    """Returns the settings of a run's attempt; those of the first run's first attempt are as they were given.

    Another run has other orders and dropout; another attempt has another head, a lower rate and a longer warmup.
    """
    slower, schedule, seeds = SLOWER**attempt, settings.schedule, settings.seeds
    warmup = max(schedule.warmup, min(LONGEST, schedule.warmup + LONGER * attempt))
    return replace(
        settings,
        schedule=replace(schedule, rate=schedule.rate * slower, warmup=warmup),
        head_rate=settings.head_rate and settings.head_rate * slower,
        seeds=Seeds(
            head=seed_of(seeds.head, attempt) if attempt else seeds.head,
            order=seed_of(seeds.order, run) if run else seeds.order,
            dropout=seed_of(seeds.dropout, run) if run else seeds.dropout,
        ),
    )


def _run(job: Job, run: int, attempt: int, attempts: list[dict[str, Any]]) -> tuple[nn.Module, Trained]:
    """Trains one network, and adds what is told about it to `attempts`."""
    settings = retuned(job.settings, run, attempt)
    learned = job.learned.planned(settings.seeds.order, settings.epochs)
    torch.manual_seed(seed_of(settings.seeds.head))
    part, prior = _part(run, attempt), Prior(learned.family, learned.labels)
    with within_memory(job.label, settings):
        network = job.build()
    if settings.prior_start:
        with within_memory(job.label, settings), job.device.forward():
            # By the same rows in every run: their weights are averaged, and must begin alike.
            for each, its in job.learned.parts(network):
                first = replace(its, devices=1).epoch(0)[0][0]  # the same, on however many devices they learn
                start_at(each, Prior(its.family, its.labels).eta, its.batch(first, 0).inputs)
    if not run and not attempt:
        with within_memory(job.label, settings):
            for each, its in job.learned.parts(network):
                check_pooled_states(each, its, job.label)
    if settings.epochs and not run and not attempt:
        forecast(network, learned, settings, job.device, job.label, Path())
    if settings.head_first:
        _head_alone(network, job, learned, settings, settings.head_first, f"{part}-head")

    def evaluate() -> float:
        assert job.judge is not None
        with job.device.forward():
            return job.judge.score(network, job.device.share)

    trained = Trained(Record(), [])  # with no epoch it answers as it came
    if settings.epochs:
        trained = fit(
            TrainingRun(
                *(network, learned, settings, job.device, job.checkpoint, job.label, part),
                evaluate=evaluate if job.judge else None,
                prior=prior if job.attempts else None,
                rows=len(learned.labels),
            )
        )
    record = trained.record
    if settings.epochs and job.attempts and not record.stopped:
        best = min((score for _, score in record.scores), default=math.inf)
        inner = (best, float(prior.losses(job.judge.labels).mean())) if job.judge else None
        record.stopped = fruitless(record.seen, prior, inner)
    if record.stopped:
        again = attempt + 1 < job.attempts and not run
        print(f"warning: {job.label}: {record.stopped}; {'it starts again' if again else 'it is given up'}", flush=True)
    attempts.append(
        {
            "run": run,
            "attempt": attempt,
            "rate": settings.schedule.rate,
            "warmup": settings.schedule.warmup,
            "head": settings.seeds.head,
            "steps": len(record.losses),
            "of": sum(len(learned.epoch(number)) for number in range(settings.epochs)),
            "stopped": record.stopped,
        }
    )
    # Nobody votes with a network that has learned nothing.
    return network, Trained(record, [] if record.stopped else trained.voters)


def _head_alone(
    network: nn.Module, job: Job, learned: Supervised | Interleaved, settings: Training, first: HeadFirst, part: str
) -> None:
    """Trains what is not backbone (linear probing); the backbone is frozen in evaluation mode, bit by bit as it was."""
    backbone = network.get_submodule(backbone_name(network))
    learning = [each for each in backbone.parameters() if each.requires_grad]
    for each in learning:
        each.requires_grad_(False)
    schedule = RateSchedule(rate=first.rate, warmup=LONGER, decay="linear")
    alone = replace(
        settings.without_step_techniques(), epochs=first.epochs, schedule=schedule, head_rate=None, ema=0.0, swa=1.0
    )
    label, learned = f"{job.label}, head", learned.planned(settings.seeds.order, first.epochs)
    fit(TrainingRun(network, learned, alone, job.device, job.checkpoint, label, part, frozen=backbone))
    for each in learning:
        each.requires_grad_(True)


def _learned_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in network.named_parameters() if each.requires_grad}


def _part(run: int, attempt: int) -> str:
    return f"run{run}-attempt{attempt}"
