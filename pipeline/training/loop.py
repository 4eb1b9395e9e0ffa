"""The one training loop, for fine-tuning and pretraining alike.

rate -> forward and backward -> clip -> step -> average -> log -> evaluate -> save

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
from pipeline.training.averaging import Average
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device
from pipeline.training.optim import adamw, rate_at
from pipeline.training.progress import track
from pipeline.training.state import Record, State


class Batch(NamedTuple):
    """What one forward pass sees."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    units: int
    """Rows, or tokens to guess: what the loss of a step is an average over."""


class Objective(Protocol):
    """What is to be learned from which rows."""

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Steps of batches of row numbers."""

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """The tensors of some rows, on the device."""

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum over the units of what is minimised, and of the plain cross entropy in nats."""


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
) -> Record:
    """Trains what requires gradients in `network`, in place; it ends with the averaged or best weights asked for.

    `settings` are those of params.yaml's `training` (or `pretrain`) and its `seeds.dropout`; `evaluate` gives the plain
    cross entropy on the inner slice; `steps` ends the run early, its schedule too; `part` names its checkpoint.

    Raises: PodiumError where the loss is not finite, or memory runs out.
    """
    plan = [objective.epoch(number) for number in range(settings["epochs"])]
    total = min(steps or 10**9, sum(map(len, plan)))
    optimizer, scaler = adamw(network, settings), device.scaler()
    weights: dict[str, Tensor] = {name: each for name, each in network.named_parameters() if each.requires_grad}
    half_life = settings.get("ema", 0.0) * total
    average = Average(weights, 0.5 ** (1 / half_life)) if half_life else None
    state = State(weights, optimizer, scaler, average)
    done = state.restore(checkpoint, part)
    if done:
        print(f"{label}: goes on after step {done} of {total}", flush=True)
    every = max(1, len(plan[0]) // settings.get("evaluations_per_epoch", 1))
    record = state.record
    network.train()
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
            loss, plain = _gradients(network, objective, batches, step, device, scaler)
        if not math.isfinite(loss):
            raise PodiumError(
                f"{label}: the loss is not finite at step {step + 1} of {total} (rate {rate:.2g}, {device.precision}); "
                "lower training.schedule.rate or set training.precision: fp32"
            )
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(weights.values(), settings.get("clip", 1.0))
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        overflow = scaler.get_scale() < scale
        record.skipped += overflow
        if average and not overflow:
            average.update(step)
        record.losses.append(plain)
        if evaluate and ((step + 1) % every == 0 or step + 1 == total):
            state.judge(step + 1, evaluate, network)
        if checkpoint.due() and step + 1 < total:
            state.save(checkpoint, part, step + 1)
    state.finish()
    state.save(checkpoint, part, total)
    network.eval()
    return record


def _gradients(
    network: nn.Module,
    objective: Objective,
    rows: list[np.ndarray],
    step: int,
    device: Device,
    scaler: torch.amp.GradScaler,
) -> tuple[float, float]:
    """One step's gradients, accumulated over its batches; its mean loss and plain cross entropy.

    The loss is divided by the units of the whole step, so that it does not matter how the rows were packed.
    """
    batches = [objective.batch(each, step) for each in rows]
    units = max(1, sum(batch.units for batch in batches))
    total = torch.zeros(2, device=batches[0].targets.device)
    for batch in batches:
        with device.forward():
            loss, plain = objective.loss(network, batch)
        scaler.scale(loss / units).backward()
        total += torch.stack([loss.detach(), plain.detach()])
    found = (total / units).tolist()
    return found[0], found[1]


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
