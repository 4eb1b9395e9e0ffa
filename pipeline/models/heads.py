"""From token states to class logits: pooling, and the two heads.

The equivariant head gives s_A = f(a, b), s_B = f(b, a) and s_tie = g(a, b) + g(b, a): when the sides change places,
so do the answers, exactly and at no extra cost.

Shape suffixes: R rows, V views of a row, B sequences of a batch (R * V), L tokens of a sequence, E hidden width,
P features of a pair (4 E), C classes, 1 an axis of one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.competitions.task import Task


class Pooling(nn.Module):
    """Makes one vector of a sequence's token states."""

    def __init__(self, kind: str, hidden: int) -> None:
        """`kind` is `mean` over the tokens, `cls` for the first, `last` for the last, or `attention`, a learned
        weighting."""
        super().__init__()
        self.kind = kind
        self.score = nn.Linear(hidden, 1) if kind == "attention" else None

    def forward(self, states_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """Returns pooled_BE."""
        if self.kind == "cls":
            return states_BLE[:, 0]
        if self.kind == "last":
            return states_BLE[torch.arange(len(states_BLE), device=states_BLE.device), mask_BL.sum(dim=1) - 1]
        states_BLE = states_BLE.float()  # sums over many tokens lose digits in half precision
        if self.score is None:
            weights_BL = mask_BL / mask_BL.sum(dim=1, keepdim=True)
        else:
            weight_1E, bias = self.score.weight.float(), self.score.bias.float()
            scores_BL = linear(states_BLE, weight_1E, bias).squeeze(-1).masked_fill(mask_BL == 0, float("-inf"))
            weights_BL = scores_BL.softmax(dim=1)
        return torch.einsum("ble,bl->be", states_BLE, weights_BL.to(states_BLE.dtype))


class PlainHead(nn.Module):
    """Two layers over a row's vectors: one as it is, two beside their difference and product."""

    def __init__(self, hidden: int, classes: int, views: int) -> None:
        super().__init__()
        self.network = _two_layers(hidden, hidden * (1 if views == 1 else 4), classes)

    def forward(self, pooled_RVE: Tensor) -> Tensor:
        """Returns logits_RC."""
        one_RE = pooled_RVE[:, 0]
        return self.network(one_RE if pooled_RVE.shape[1] == 1 else _pair(one_RE, pooled_RVE[:, 1]))


class EquivariantHead(nn.Module):
    """The head that the module's docstring describes; `task` says which classes are A, B and tie."""

    def __init__(self, hidden: int, task: Task) -> None:
        super().__init__()
        self.first, self.second = task.decisive or (0, 1)
        self.win = _two_layers(hidden, 4 * hidden, 1)
        self.tie = _two_layers(hidden, 4 * hidden, 1)

    def forward(self, pooled_RVE: Tensor) -> Tensor:
        """Returns logits_RC of two views and three classes."""
        straight_RP = _pair(pooled_RVE[:, 0], pooled_RVE[:, 1])
        mirrored_RP = _pair(pooled_RVE[:, 1], pooled_RVE[:, 0])
        logits_R1 = [self.tie(straight_RP) + self.tie(mirrored_RP)] * 3
        logits_R1[self.first], logits_R1[self.second] = self.win(straight_RP), self.win(mirrored_RP)
        return torch.cat(logits_R1, dim=1)


def _pair(one_RE: Tensor, other_RE: Tensor) -> Tensor:
    """Returns pair_RP."""
    return torch.cat([one_RE, other_RE, (one_RE - other_RE).abs(), one_RE * other_RE], dim=1)


def _two_layers(hidden: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
