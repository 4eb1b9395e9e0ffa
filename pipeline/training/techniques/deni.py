"""Delayed ensemble with noisy interpolation, DENI (Pecher et al. 2024, arXiv 2406.12471).

In each phase, copies of the network get noise and train on the same rows as it does, each with an AdamW and dropout of
its own. At the end of a phase that interpolates, the network becomes the mean of itself and them; those of the last
phase stay, and vote. They are trained one after the other when their phase begins, so that memory holds one optimiser
at a time beside the network's; the network then goes its own way through the phase in the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.settings.techniques import Deni
from pipeline.training.gradients import Learner, gradients
from pipeline.training.optim import adamw, backbone_name, step
from pipeline.training.seeds import seed_of
from pipeline.training.techniques.averaging import put

STREAM = 977
"""Sets the noise's seeds apart from those of head, order and dropout."""


class Phase(NamedTuple):
    """Steps in which children train: from `first` to before `last`, counted from 0."""

    first: int
    last: int
    votes: bool
    """The children stay; otherwise they are averaged into the network."""


def phases(total: int, settings: Deni) -> list[Phase]:
    """Returns all phases of a run of `total` steps. The published schedule counts steps from 1, and so does this."""
    alone, together = (max(1, round(share * total)) for share in (settings.alone, settings.together))
    last = math.ceil(settings.ensemble * total) - 1
    found, free = [], 0  # where the network began to train by itself
    for number in range(math.ceil(settings.begin * total) - 1, math.ceil(settings.end * total) - 1):
        if number - free >= alone and number + together <= last:
            found.append(Phase(number, number + together, votes=False))
            free = number + together
    return [*found, Phase(max(last, free), total, votes=True)]


def updates(total: int, settings: Deni) -> int:
    """Batches that are computed forward and backward in a run of `total` steps, those of the children included."""
    return total + settings.children * sum(phase.last - phase.first for phase in phases(total, settings))


class Children:
    """The children of one run."""

    def __init__(
        self,
        learner: Learner,
        weights: dict[str, Tensor],
        plan: list[list[np.ndarray]],
        rate_at: Callable[[int], float],
    ) -> None:
        """Takes the network's `weights` that learn, as `plan` the rows of every step, and as `rate_at` the schedule."""
        self.learner, self.weights, self.plan, self.rate_at = learner, weights, plan, rate_at
        assert learner.settings.deni
        self.settings = learner.settings.deni
        self.phases = phases(len(plan), self.settings)
        self.noisy = noisy(learner.network, weights, self.settings.noise)
        self.mean: dict[str, Tensor] = {}
        """Of the children of the phase that runs."""
        self.voters: list[dict[str, Tensor]] = []

    def before(self, number: int) -> None:
        """Trains the children of the phase that begins with `number`, if one does and they have not been trained."""
        phase = next((each for each in self.phases if each.first == number), None)
        if phase is None or self.mean or self.voters:
            return
        with _kept(self.weights):
            start = {name: each.detach().clone() for name, each in self.weights.items()}
            for child in range(1, self.settings.children + 1):
                put(self.weights, start)
                self._add_noise(phase, child)
                self._train(phase, child)
                if phase.votes:
                    self.voters.append({name: each.detach().clone() for name, each in self.weights.items()})
                else:
                    self._join(child)

    def after(self, number: int) -> None:
        """Makes the network the mean of itself and its children, where their phase ends after `number`."""
        if self.mean and any(phase.last == number + 1 for phase in self.phases):
            share = 1 / (1 + self.settings.children)
            with torch.no_grad():
                for name, each in self.weights.items():
                    each.copy_(torch.lerp(self.mean[name], each, share))
            self.mean = {}

    @torch.no_grad()
    def _add_noise(self, phase: Phase, child: int) -> None:
        variance = self.settings.variance / (1 if phase.votes else phase.first + 1)
        draw = torch.Generator().manual_seed(seed_of(self.learner.settings.seeds.dropout, STREAM, phase.first, child))
        for name in self.noisy:
            each = self.weights[name]
            spread = float(each.float().std()) if each.numel() > 1 else 0.0
            noise = torch.randn(each.shape, generator=draw).to(each.device)
            each.add_(math.sqrt(variance) * spread * noise)

    def _train(self, phase: Phase, child: int) -> None:
        learner, settings = self.learner, self.learner.settings
        optimizer, scaler, skipped = adamw(learner.network, settings), learner.device.scaler(), 0
        own = Learner(learner.network, learner.objective, settings, learner.device, scaler)
        for number in range(phase.first, phase.last):
            # As in the loop, a step that an fp16 overflow cost does not move the schedule.
            rate = self.rate_at(number - skipped) if self.settings.rate == "schedule" else settings.schedule.rate
            torch.manual_seed(seed_of(settings.seeds.dropout, number, child))
            gradients(own, self.plan[number], number, number / len(self.plan))
            overflow = step(optimizer, scaler, self.weights.values(), rate, settings.clip).overflow
            skipped += overflow is not None and bool(overflow.sum() > 0)

    @torch.no_grad()
    def _join(self, child: int) -> None:
        if child == 1:
            self.mean = {name: each.detach().clone() for name, each in self.weights.items()}
            return
        for name, each in self.weights.items():
            self.mean[name].lerp_(each, 1 / child)


def noisy(network: nn.Module, weights: dict[str, Tensor], where: str) -> list[str]:
    """Returns the names of what gets noise: everything that learns, or what stands above the backbone.

    `auto` takes the head where all of the backbone learns, and everything where a part of it does (adapters).
    """
    backbone = network.get_submodule(backbone_name(network))
    adapters = any("lora_" in name for name, _ in backbone.named_parameters())
    if where == "trained" or (where == "auto" and adapters):
        return list(weights)
    return [name for name in weights if not name.startswith(f"{backbone_name(network)}.")]


@contextmanager
def _kept(weights: dict[str, Tensor]) -> Iterator[None]:
    """Gives the network its own weights and no gradients afterwards, whatever was trained in their place."""
    own = {name: each.detach().clone() for name, each in weights.items()}
    try:
        yield
    finally:
        put(weights, own)
        for each in weights.values():
            each.grad = None
