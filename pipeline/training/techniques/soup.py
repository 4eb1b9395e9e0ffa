"""A greedy soup of a run's moments (Wortsman et al. 2022, arXiv 2203.05482), in place of the best one.

The moments are those at which the inner slice was scored, as `inner` and `evaluations_per_epoch` say. The best begins;
the others follow, the better ones first, and each joins the mean of weights where the loss on the slice does not rise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.settings.techniques import Soup
from pipeline.training.techniques.averaging import put


class Moment(NamedTuple):
    """One of the best moments so far."""

    score: float
    """Plain loss on the inner slice, in nats per row."""
    step: int
    """Steps done."""
    weights: dict[str, Tensor]


class Moments:
    """The best moments of one run, the best first; of equal ones the earlier."""

    def __init__(self, settings: Soup) -> None:
        self.settings = settings
        self.kept: list[Moment] = []

    def take(self, score: float, step: int, weights: dict[str, Tensor]) -> None:
        """Keeps a copy of the weights where they are among the best."""
        if len(self.kept) < self.settings.moments or score < self.kept[-1].score:
            moment = Moment(score, step, {name: each.detach().clone() for name, each in weights.items()})
            self.kept = sorted([*self.kept, moment], key=lambda each: each[:2])[: self.settings.moments]

    @torch.no_grad()
    def cook(self, weights: dict[str, Tensor], evaluate: Callable[[], float]) -> list[int]:
        """Gives the network's `weights` the soup, and returns the steps of the moments in it.

        `evaluate` gives the loss on the inner slice with the weights as they are.
        """
        first, *others = self.kept
        mean, lowest, steps = first.weights, first.score, [first.step]
        for each in others:
            share = 1 / (len(steps) + 1)
            mixed = {name: torch.lerp(mean[name], each.weights[name], share) for name in mean}
            put(weights, mixed)
            if (score := evaluate()) <= lowest:
                mean, lowest = mixed, score
                steps.append(each.step)
        put(weights, mean)
        return steps
