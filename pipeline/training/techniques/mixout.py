"""Mixout (Lee et al. 2020, arXiv 1909.11299): in training each weight of the backbone's linear layers falls back to its
pretrained value with probability p; what stays is scaled so that the mean is the weight itself.

W~ = W0 + M (W - W0) / (1 - p) with M ~ Bernoulli(1 - p) for each weight on its own, so the gradient is M / (1 - p).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Mixed(nn.Module):
    """The weight as a forward pass sees it: mixed in training mode, as it is otherwise."""

    def __init__(self, pretrained: Tensor, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("pretrained", pretrained.detach().clone(), persistent=False)
        self.pretrained: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the mixed weight; (outputs, inputs) -> the same shape."""
        if not self.training:
            return weight
        kept = torch.empty_like(weight).bernoulli_(1 - self.rate)
        return self.pretrained + kept * (weight - self.pretrained) / (1 - self.rate)


def mix(backbone: nn.Module, rate: float) -> None:
    """Makes every linear layer of `backbone` fall back to the weights that it has now."""
    for layer in [each for each in backbone.modules() if isinstance(each, nn.Linear)]:
        parametrize.register_parametrization(layer, "weight", Mixed(layer.weight, rate))


def unmix(network: nn.Module) -> None:
    """Makes the layers ordinary ones again, with the weights that they have learned."""
    for layer in [each for each in network.modules() if parametrize.is_parametrized(each, "weight")]:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
