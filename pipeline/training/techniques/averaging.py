"""Averages of weights, kept in fp32 beside them: over the steps of a run (EMA, SWA), or over several runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pipeline.settings.finetuning import Training

Share = Callable[[int], float]
"""Step -> the share that the weights after it get in the average."""


def share_of(settings: Training, total: int) -> Share | None:
    """Returns the average that a run of `total` steps asks for by `ema` or `swa`, or None.

    EMA is m <- b m + (1 - b) w with b = min(decay, (1 + t) / (10 + t)) at step t, for a decay of the half-life asked
    for: a short run would otherwise keep its first weights. SWA is the equal mean from a step on.
    """
    if half_life := settings.ema * total:
        decay = 0.5 ** (1 / half_life)
        return lambda step: 1 - min(decay, (1 + step) / (10 + step))
    start = int(settings.swa * total)
    return (lambda step: 1 / max(1, step - start + 1)) if start < total else None


class Average:
    """m <- m + share (w - m) after each step of the optimiser."""

    def __init__(self, weights: dict[str, Tensor], share: Share) -> None:
        self.weights, self.share = weights, share
        self.mean = {name: each.detach().clone() for name, each in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after step `step` in; steps are counted without the skipped ones."""
        for name, each in self.weights.items():
            self.mean[name].lerp_(each, self.share(step))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the network the averaged weights for a while; then its own again, bit by bit."""
        own = {name: each.detach().clone() for name, each in self.weights.items()}
        put(self.weights, self.mean)
        try:
            yield
        finally:
            put(self.weights, own)


@torch.no_grad()
def put(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Copies `values` into `weights`, which stay the tensors that they are: optimiser and ties point to them."""
    for name, each in weights.items():
        each.copy_(values[name])


@torch.no_grad()
def add(weights: dict[str, Tensor], mean: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Returns the mean of `count` runs' weights, after `count - 1` of them had `mean`."""
    if count == 1:
        return {name: each.detach().clone() for name, each in weights.items()}
    return {name: each.lerp_(weights[name], 1 / count) for name, each in mean.items()}
