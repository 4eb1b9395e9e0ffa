"""One step's gradients: forward and backward over its batches, with the penalties and attacks that are switched on.

The loss is divided by the units of the whole step, so that it does not matter how the rows were packed, nor on how many
devices they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PodiumError, ran_out
from pipeline.settings.finetuning import Training
from pipeline.settings.techniques import Awp, Fgm
from pipeline.training.clock import timed
from pipeline.training.devices.device import Device
from pipeline.training.objectives.objective import Batch, Loss, Objective
from pipeline.training.techniques.adversarial import attackable, attacked, awp_shift, table, table_shift, words_shift
from pipeline.training.techniques.perturbation import Noise, caught, moved
from pipeline.training.techniques.proximal import Teacher, divergence, smoothness
from pipeline.training.techniques.scaled_gradients import scale_right_rows, scaler_at

Technique = TypeVar("Technique", Awp, Fgm)


class Shown(NamedTuple):
    """What a step showed, before the weights changed, where it was computed: a GPU may still be at it."""

    losses: Tensor
    """(2,) the loss that was minimised and the plain one, means over the step's units."""
    logits: Tensor | None
    """(rows, outputs), in the order of the step's rows, where these have answers."""
    attack: Tensor | None
    """(2,) ||v|| and ||w|| of the attack on the weights, NaN where a gradient was not finite; None without one."""


@dataclass(frozen=True)
class Learner:
    """A network and how it learns."""

    network: nn.Module
    objective: Objective
    settings: Training
    device: Device
    scaler: torch.amp.GradScaler
    teacher: Teacher | None = None
    right: float = 1.0
    """What is kept of the gradients of rows that are right; set for each step."""


def gradients(learner: Learner, rows: list[np.ndarray], step: int, progress: float) -> Shown:
    """Accumulates the gradients of one step, `progress` (0 to 1) through the run, in the network's parameters.

    Of a run on several devices each computes its share of `rows`; gradients and what is shown are of all of them.
    """
    share = learner.device.share
    own = share.of(rows)
    with timed("data"):
        # A rank for which no row is left computes one that counts nothing: it has gradients of what the others have.
        batches = [learner.objective.batch(each, step) for each in own or [rows[0][:1]]]
    units = max(1, share.total(sum(batch.units for batch in batches) if own else 0))
    counted = units if own else math.inf
    total = torch.zeros(2, device=batches[0].targets.device)
    logits, noise = [], Noise(learner.device.name)
    fgm, awp = learner.settings.fgm, learner.settings.awp
    fgm = fgm if fgm and progress >= fgm.start else None
    awp = awp if awp and progress >= awp.start else None
    if learner.settings.dsgd:
        learner = replace(learner, right=scaler_at(progress, learner.settings.dsgd))
    for batch in batches:
        loss = _backward(learner, batch, counted, fgm if fgm and fgm.on == "output" else None)
        total += torch.stack([loss.minimised.detach(), loss.plain.detach()])
        if loss.logits is not None:
            logits.append(loss.logits.detach())
    if not own:
        total.zero_()
    share.add_up([total, *_found(learner)])
    attack = None
    if fgm and fgm.on == "table":
        attack = _once_more(learner, batches, counted, noise, table(learner.network), table_shift, fgm)
    if awp:
        attack = _once_more(learner, batches, counted, noise, attackable(learner.network), awp_shift, awp)
    return Shown(total / units, share.whole(torch.cat(logits).float(), rows) if logits else None, attack)


def _found(learner: Learner) -> list[Tensor]:
    """Returns the gradients; all ranks have them of the same parameters."""
    return [each.grad for each in learner.network.parameters() if each.grad is not None]


def fetched(tensors: Sequence[Tensor | None]) -> list[np.ndarray | None]:
    """Returns copies for the host, in fp32, of tensors on one device: the host waits for it once."""
    parts = [each.detach().float() for each in tensors if each is not None]
    line = torch.cat([each.flatten() for each in parts]).cpu().numpy()
    ends = np.cumsum([each.numel() for each in parts])[:-1]
    pieces = iter([piece.reshape(each.shape) for piece, each in zip(np.split(line, ends), parts, strict=True)])
    return [None if each is None else next(pieces) for each in tensors]


def _backward(learner: Learner, batch: Batch, units: float, fgm: Fgm | None) -> Loss:
    """Accumulates the gradients of one batch: its own, those under the attack on its words, or both."""
    scaled = learner.scaler.scale
    if fgm is None:
        with timed("forward"):
            loss = _loss(learner, batch)
        with timed("backward"):
            scaled(loss.minimised / units).backward()
        return loss
    noise = Noise(learner.device.name)
    with caught(learner.network) as words:
        loss = _loss(learner, batch)
    first = words[0]  # of the pass that gave the logits
    if fgm.clean:
        scaled(loss.minimised / units).backward()
        gradient = first.grad
    else:
        (gradient,) = torch.autograd.grad(scaled(loss.minimised / units), first)
    assert gradient is not None
    by = words_shift(gradient, first.detach(), batch.inputs[1], batch.units, fgm.radius)
    noise.again()
    with moved(learner.network, by):
        scaled(_loss(learner, batch).minimised / units).backward()
    return loss


def _loss(learner: Learner, batch: Batch) -> Loss:
    """Returns the objective's loss, with the penalties that are switched on."""
    network, settings, device = learner.network, learner.settings, learner.device
    family = learner.objective.family
    r_drop, smart = settings.r_drop, settings.smart
    noise = Noise(device.name) if smart else None
    with device.forward():
        if smart:
            with caught(network, smart.space) as words:
                loss = learner.objective.loss(network, batch)
        else:
            loss = learner.objective.loss(network, batch)
    if loss.logits is None or family is None:
        return loss
    minimised = loss.minimised
    if learner.right < 1:
        scale_right_rows(family, loss.logits, batch.targets, learner.right)
    if r_drop:
        with device.forward():
            other = learner.objective.loss(network, batch)
        assert other.logits is not None
        if learner.right < 1:
            scale_right_rows(family, other.logits, batch.targets, learner.right)
        apart = divergence(family, loss.logits, other.logits)
        minimised = (minimised + other.minimised) / 2 + r_drop.weight / 2 * apart
    if smart:
        assert noise is not None

        def answer() -> Tensor:
            with device.forward():
                found: Tensor = network(*batch.inputs)
            return found.float()

        rough = smoothness(family, network, answer, loss.logits, words[0], batch.inputs[1], noise, smart)
        minimised = minimised + smart.weight * rough
    if learner.teacher:
        with device.forward():
            before = learner.teacher.answer(network, batch.inputs)
        minimised = minimised + learner.teacher.settings.weight * divergence(family, loss.logits, before)
    return Loss(minimised, loss.plain, loss.logits)


def _once_more(
    learner: Learner,
    batches: list[Batch],
    units: float,
    noise: Noise,
    weights: dict[str, nn.Parameter],
    shift: Callable[[Tensor, Tensor, Technique], Tensor],
    settings: Technique,
) -> Tensor | None:
    """Computes all batches again at shifted weights, with the same dropout: gradients that replace or join those."""
    with timed("attacks"), attacked(weights, shift, settings) as size:
        if size is None:
            return None
        if not settings.clean:
            learner.network.zero_grad(set_to_none=True)
        elif not learner.device.share.leads:  # they are every rank's by now, and count once
            learner.network.zero_grad(set_to_none=False)
        noise.again()
        for batch in batches:
            learner.scaler.scale(_loss(learner, batch).minimised / units).backward()
        learner.device.share.add_up(_found(learner))
    return size


@contextmanager
def within_memory(label: str, settings: Training) -> Iterator[None]:
    """Turns memory that runs out inside into a PodiumError that says which setting to lower."""
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise PodiumError(
            f"{label}: out of memory; lower batches.tokens_per_batch (now {settings.batches.tokens_per_batch}) "
            "or max_tokens, or switch training.gradient_checkpointing on"
        ) from error
