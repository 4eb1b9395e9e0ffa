"""From token states to class logits: pooling, and the two heads.

The equivariant head gives s_A = f(a, b), s_B = f(b, a) and s_tie = g(a, b) + g(b, a): when the sides change places,
so do the answers, exactly and at no extra cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.competitions.task import Task


class Pooling(nn.Module):
    """(sequences, length, hidden) states and their mask -> (sequences, hidden)."""

    def __init__(self, kind: str, hidden: int) -> None:
        """`mean` over the tokens, `cls` the first, `last` the last, `attention` a learned weighting."""
        super().__init__()
        self.kind = kind
        self.score = nn.Linear(hidden, 1) if kind == "attention" else None

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "cls":
            return states[:, 0]
        if self.kind == "last":
            return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
        states = states.float()  # sums over many tokens lose digits in half precision
        if self.score is None:
            weights = mask / mask.sum(dim=1, keepdim=True)
        else:
            weight, bias = self.score.weight.float(), self.score.bias.float()
            scores = linear(states, weight, bias).squeeze(-1).masked_fill(mask == 0, float("-inf"))
            weights = scores.softmax(dim=1)
        return torch.einsum("slh,sl->sh", states, weights.to(states.dtype))


class PlainHead(nn.Module):
    """Two layers over a row's vectors: one as it is, two beside their difference and product."""

    def __init__(self, hidden: int, classes: int, views: int) -> None:
        super().__init__()
        self.network = _two_layers(hidden, hidden * (1 if views == 1 else 4), classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """(rows, views, hidden) -> (rows, classes)"""
        return self.network(pooled[:, 0] if pooled.shape[1] == 1 else _pair(pooled[:, 0], pooled[:, 1]))


class EquivariantHead(nn.Module):
    """See the module's docstring; `task` says which classes are A, B and tie."""

    def __init__(self, hidden: int, task: Task) -> None:
        super().__init__()
        self.first, self.second = task.decisive or (0, 1)
        self.win = _two_layers(hidden, 4 * hidden, 1)
        self.tie = _two_layers(hidden, 4 * hidden, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        """(rows, 2, hidden) -> (rows, 3)"""
        straight, mirrored = _pair(pooled[:, 0], pooled[:, 1]), _pair(pooled[:, 1], pooled[:, 0])
        logits = [self.tie(straight) + self.tie(mirrored)] * 3
        logits[self.first], logits[self.second] = self.win(straight), self.win(mirrored)
        return torch.cat(logits, dim=1)


def _pair(one: Tensor, other: Tensor) -> Tensor:
    return torch.cat([one, other, (one - other).abs(), one * other], dim=1)


def _two_layers(hidden: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
