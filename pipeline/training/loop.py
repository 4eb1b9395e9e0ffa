"""The one training loop, for fine-tuning and pretraining alike.

rate -> forward and backward -> clip -> step -> average -> log -> guard -> evaluate -> save

A run is a function of its settings and seeds alone: the order of the rows is drawn per epoch and dropout per step, so
that a run that was killed goes on from its checkpoint as if nothing had happened, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PodiumError
from pipeline.training.averaging import Average, share_of
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device
from pipeline.training.guard import alarm, seen
from pipeline.training.optim import adamw, bottom_and_head, rate_at
from pipeline.training.progress import track
from pipeline.training.state import Record, State

NOT_FINITE = "lower training.schedule.rate or set training.precision: fp32"


class Batch(NamedTuple):
    """What one forward pass sees."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    units: int
    """Rows, or tokens to guess: what the loss of a step is an average over."""


class Loss(NamedTuple):
    """Of one batch."""

    minimised: Tensor
    """The sum over the units of what is minimised."""
    plain: Tensor
    """The sum over the units of the plain cross entropy, in nats."""
    logits: Tensor | None = None
    """(rows, classes), where the rows have classes: what the guard looks at."""


class Objective(Protocol):
    """What is to be learned from which rows."""

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Steps of batches of row numbers."""

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """The tensors of some rows, on the device."""

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """What the network has still to learn of the batch."""


def fit(
    network: nn.Module,
    objective: Objective,
    settings: dict[str, Any],
    device: Device,
    checkpoint: Checkpoint,
    label: str,
    evaluate: Callable[[], float] | None = None,
    part: str = "train",
    steps: int | None = None,
    prior: np.ndarray | None = None,
    resting: nn.Module | None = None,
) -> Record:
    """Trains what requires gradients in `network`, in place; it ends with the averaged or best weights asked for.

    `settings` are those of params.yaml's `training` (or `pretrain`) and its `seeds.dropout`; `evaluate` gives the plain
    cross entropy on the inner slice; `steps` ends the run early, its schedule too; `part` names its checkpoint. With
    the classes' shares as `prior` the guard watches: where it stops the run, the record says why, and the weights are
    of no use. `resting`, a part of the network, stays in evaluation mode.

    Raises: PodiumError where memory runs out, or the loss is not finite and no guard watches.
    """
    plan = [objective.epoch(number) for number in range(settings["epochs"])]
    total = min(steps or 10**9, sum(map(len, plan)))
    optimizer, scaler = adamw(network, settings), device.scaler()
    weights: dict[str, Tensor] = {name: each for name, each in network.named_parameters() if each.requires_grad}
    share = share_of(settings, total)
    average = Average(weights, share) if share else None
    state = State(weights, optimizer, scaler, average)
    done = state.restore(checkpoint, part)
    if state.record.stopped:
        return state.record
    if done:
        print(f"{label}: goes on after step {done} of {total}", flush=True)
    every = max(1, len(plan[0]) // settings.get("evaluations_per_epoch", 1))
    record, (bottom, head) = state.record, bottom_and_head(network)
    network.train()
    if resting is not None:
        resting.eval()
    flat = [batches for epoch in plan for batches in epoch][:total]
    for step, batches in track(list(enumerate(flat))[done:], label, lambda: _note(record, optimizer), done):
        if _out_of_patience(record, settings.get("patience", 0)):
            break
        # A step that an fp16 overflow cost does not move the schedule (it shortens it by one step at the end).
        rate = rate_at(step - record.skipped, total, len(plan[0]), settings["schedule"])
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        torch.manual_seed(seed_of(settings["seeds"]["dropout"], step))
        with within_memory(label, settings):
            loss, plain, logits, labels = _gradients(network, objective, batches, step, device, scaler)
        if not math.isfinite(loss):
            told = f"the loss is not finite at step {step + 1} of {total} (rate {rate:.2g}, {device.precision})"
            if prior is None:
                raise PodiumError(f"{label}: {told}; {NOT_FINITE}")
            record.stopped = told
            break
        scaler.unscale_(optimizer)
        reached = _norms(bottom, head) if prior is not None else (0.0, 0.0)
        nn.utils.clip_grad_norm_(weights.values(), settings.get("clip", 1.0))
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        overflow = scaler.get_scale() < scale
        record.skipped += overflow
        if average and not overflow:
            average.update(step - record.skipped)
        record.losses.append(plain)
        if prior is not None and logits is not None:
            record.seen.append(seen(logits, labels, prior, *reached, scaler.get_scale(), overflow))
            record.stopped = alarm(record.seen, total)
            if record.stopped:
                break
        if evaluate and ((step + 1) % every == 0 or step + 1 == total):
            state.judge(step + 1, evaluate, network)
        if checkpoint.due() and step + 1 < total:
            state.save(checkpoint, part, step + 1)
    if not record.stopped:
        state.finish()
    state.save(checkpoint, part, len(record.losses) if record.stopped else total)
    network.eval()
    return record


def _gradients(
    network: nn.Module,
    objective: Objective,
    rows: list[np.ndarray],
    step: int,
    device: Device,
    scaler: torch.amp.GradScaler,
) -> tuple[float, float, np.ndarray | None, np.ndarray]:
    """One step's gradients, accumulated over its batches; its mean loss and plain cross entropy, logits and targets.

    The loss is divided by the units of the whole step, so that it does not matter how the rows were packed.
    """
    batches = [objective.batch(each, step) for each in rows]
    units = max(1, sum(batch.units for batch in batches))
    total = torch.zeros(2, device=batches[0].targets.device)
    logits = []
    for batch in batches:
        with device.forward():
            loss = objective.loss(network, batch)
        scaler.scale(loss.minimised / units).backward()
        total += torch.stack([loss.minimised.detach(), loss.plain.detach()])
        if loss.logits is not None:
            logits.append(loss.logits.detach())
    found = (total / units).tolist()
    shown = torch.cat(logits).float().cpu().numpy() if logits else None
    return found[0], found[1], shown, torch.cat([batch.targets.flatten() for batch in batches]).cpu().numpy()


def _norms(bottom: list[nn.Parameter], head: list[nn.Parameter]) -> tuple[float, float]:
    """Of the gradients of the two groups; 0 for what has none, or none that is finite."""
    groups = [[each.grad for each in group if each.grad is not None] for group in (bottom, head)]
    found = [float(nn.utils.get_total_norm(group)) if group else 0.0 for group in groups]
    return found[0] if math.isfinite(found[0]) else 0.0, found[1] if math.isfinite(found[1]) else 0.0


def seed_of(*numbers: int) -> int:
    """One seed for torch from a stream's seed and the place in it."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)


def _out_of_patience(record: Record, patience: int) -> bool:
    if not patience or record.best is None:
        return False
    return sum(step > record.best for step, _ in record.scores) >= patience


def _note(record: Record, optimizer: torch.optim.Optimizer) -> str:
    recent = record.losses[-20:]
    rate = max(group["lr"] for group in optimizer.param_groups)
    inner = f", inner {record.scores[-1][1]:.4f}" if record.scores else ""
    return f"loss {np.mean(recent):.4f}, rate {rate:.1e}{inner}" if recent else ""


@contextmanager
def within_memory(label: str, settings: dict[str, Any]) -> Iterator[None]:
    """Says which setting to lower where memory runs out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError) and "memory" not in text:
            raise
        raise PodiumError(
            f"{label}: out of memory; lower batches.tokens_per_batch (now {settings['batches']['tokens_per_batch']}) "
            "or max_tokens, or switch training.gradient_checkpointing on"
        ) from error
