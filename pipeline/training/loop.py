"""The one training loop, for fine-tuning and pretraining alike.

rate -> forward and backward -> attack -> clip -> step -> average -> log -> guard -> evaluate -> save

A run is a function of its settings and seeds alone: the order of the rows is drawn per epoch and dropout per step, so
that a run that was killed goes on from its checkpoint as if nothing had happened: on a CPU to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import DivergedError
from pipeline.settings.finetuning import Training
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.clock import timed
from pipeline.training.devices.device import Device
from pipeline.training.gradients import Learner, fetched, gradients, within_memory
from pipeline.training.guard import alarm, seen
from pipeline.training.objectives.objective import Objective
from pipeline.training.optim import adamw, bottom_and_head, rate_at, step
from pipeline.training.prior import Prior
from pipeline.training.progress import track
from pipeline.training.seeds import seed_of
from pipeline.training.state import Record, State
from pipeline.training.techniques.adversarial import TINY
from pipeline.training.techniques.averaging import Average, share_of
from pipeline.training.techniques.deni import Children
from pipeline.training.techniques.proximal import Teacher
from pipeline.training.techniques.soup import Moments
from pipeline.training.techniques.stable_lora import Shrinkage

NOT_FINITE = "lower training.schedule.rate or set training.precision: fp32"


@dataclass(frozen=True)
class TrainingRun:
    """What the loop is asked to do: which network learns what, how, and where its state is kept."""

    network: nn.Module
    """What requires gradients learns, in place; it ends with the averaged or best weights asked for."""
    objective: Objective
    settings: Training
    device: Device
    checkpoint: Checkpoint
    label: str
    """For people: `siamese fold 0`."""
    part: str = "train"
    """The name of this run within its checkpoint."""
    steps: int | None = None
    """Ends the run early, its schedule too."""
    evaluate: Callable[[], float] | None = None
    """Gives the plain loss on the inner slice, in nats per row."""
    prior: Prior | None = None
    """With it the guard watches."""
    rows: int | None = None
    """Rows of the task itself, where those with higher numbers are of auxiliary ones: their steps are not watched, and
    count for nothing when the next evaluation is due."""
    frozen: nn.Module | None = None
    """A part of the network that stays in evaluation mode."""


class Trained(NamedTuple):
    """What a run has left beside the network's weights."""

    record: Record
    """Where the guard stopped the run it says why, and the weights are of no use."""
    voters: list[dict[str, Tensor]]
    """The weights of DENI's last children."""


def fit(run: TrainingRun) -> Trained:
    """Trains `run.network`, from its start or from its last checkpoint.

    Raises: PodiumError where memory runs out, DivergedError where the loss is not finite and no guard watches.
    """
    with within_memory(run.label, run.settings), timed("run"):
        return _fit(run)


def _fit(run: TrainingRun) -> Trained:
    network, settings, device, label = run.network, run.settings, run.device, run.label
    plan = [run.objective.epoch(number) for number in range(settings.epochs)]
    flat = [batches for epoch in plan for batches in epoch][: run.steps]
    total = len(flat)
    own = [run.rows is None or bool(batches[0][0] < run.rows) for batches in flat]
    counts = np.cumsum(own)
    optimizer, scaler = adamw(network, settings), device.scaler()
    weights: dict[str, Tensor] = {name: each for name, each in network.named_parameters() if each.requires_grad}
    share = share_of(settings, total)
    average = Average(weights, share) if share else None
    teacher = Teacher(weights, settings.proximal, total) if settings.proximal else None
    shrinkage = Shrinkage(weights, settings.stable_lora) if settings.stable_lora else None
    learner = Learner(network, run.objective, settings, device, scaler, teacher)

    def rate_of(number: int) -> float:
        return rate_at(number, total, sum(map(len, plan)) / len(plan), settings.schedule)

    children = Children(learner, weights, flat, rate_of) if settings.deni else None
    moments = Moments(settings.soup) if settings.soup else None
    state = State(weights, optimizer, scaler, average, teacher, children, shrinkage, moments)
    done = state.restore(run.checkpoint, run.part)
    record = state.record
    if record.stopped:
        return Trained(record, [])
    if done:
        print(f"{label}: goes on after step {done} of {total}", flush=True)
    every = max(1, sum(own[: len(plan[0])]) // settings.evaluations_per_epoch)
    bottom, head = bottom_and_head(network)
    network.train()
    if run.frozen is not None:
        run.frozen.eval()
    for number, batches in track(list(enumerate(flat))[done:], label, lambda: _note(record, optimizer), done):
        if _out_of_patience(record, settings.patience):
            break
        if children:
            children.before(number)
        torch.manual_seed(seed_of(settings.seeds.dropout, number, device.share.rank))  # a 0 at the end changes no seed
        shown = gradients(learner, batches, number, number / total)
        # A step that an fp16 overflow cost does not move the schedule (it shortens it by one step at the end).
        rate = rate_of(number - record.skipped)
        watched = (bottom, head) if run.prior is not None else ()
        with timed("optimiser"):
            stepped = step(optimizer, scaler, weights.values(), rate, settings.clip, watched)
        with timed("waiting"):
            losses, logits, attack, lost, scale, norms = fetched([*shown, *stepped])  # the one wait for a GPU
        assert losses is not None
        overflow = lost is not None and bool(lost.sum() > 0)
        if not np.isfinite(losses[0]):  # the weights have taken the step, but nobody reads them
            told = f"the loss is not finite at step {number + 1} of {total} (rate {rate:.2g}, {device.precision})"
            if run.prior is None:
                raise DivergedError(f"{label}: {told}; {NOT_FINITE}")
            record.stopped = told
            break
        record.skipped += overflow
        if shrinkage and not overflow:
            shrinkage.update()
        if average and not overflow:
            average.update(number - record.skipped)
        if teacher and not overflow:
            teacher.update(number)
        if children:
            children.after(number)
        record.losses.append(float(losses[1]))
        if attack is not None and np.isfinite(attack).all():
            record.attacks.append(float(attack[0]) / max(float(attack[1]), TINY))
        if run.prior is not None and logits is not None and norms is not None:
            labels = run.prior.labels[np.concatenate(batches)]
            finite = [float(each) if np.isfinite(each) else 0.0 for each in norms]
            size = 1.0 if scale is None else float(scale.sum())
            record.seen.append(seen(logits, labels, run.prior, finite, size, overflow))
            record.stopped = alarm(record.seen, int(counts[-1]), run.prior)
            if record.stopped:
                break
        if run.evaluate and ((own[number] and counts[number] % every == 0) or number + 1 == total):
            with timed("evaluation"):
                state.judge(number + 1, run.evaluate, network)
        if device.share.leads and run.checkpoint.due() and number + 1 < total:
            state.save(run.checkpoint, run.part, number + 1)
    if not record.stopped:
        state.finish(run.evaluate, network)
    if device.share.leads:
        state.save(run.checkpoint, run.part, len(record.losses) if record.stopped else total)
    network.eval()
    return Trained(record, children.voters if children and not record.stopped else [])


def _out_of_patience(record: Record, patience: int) -> bool:
    if not patience or record.best is None:
        return False
    return sum(step > record.best for step, _ in record.scores) >= patience


def _note(record: Record, optimizer: torch.optim.Optimizer) -> str:
    recent = record.losses[-20:]
    rate = max(group["lr"] for group in optimizer.param_groups)
    inner = f", inner {record.scores[-1][1]:.4f}" if record.scores else ""
    return f"loss {np.mean(recent):.4f}, rate {rate:.1e}{inner}" if recent else ""
