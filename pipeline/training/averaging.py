"""The exponential moving average of the weights (EMA), kept in fp32 beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """m <- b m + (1 - b) w after each step of the optimiser, with b = min(decay, (1 + t) / (10 + t)) at step t."""

    def __init__(self, weights: dict[str, Tensor], decay: float) -> None:
        self.weights, self.decay = weights, decay
        self.mean = {name: each.detach().clone() for name, each in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes the weights after step `step` in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, each in self.weights.items():
            self.mean[name].lerp_(each, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights for a while; then its own again, bit by bit."""
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
