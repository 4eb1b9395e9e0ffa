"""From token states to logits: pooling, and the heads.

Three of them answer alike whatever the order of a row's views, exactly and at no extra cost: where the sides of a
preference or the options of a question change places, so do the answers; those of a symmetric pair stay.

Shape suffixes: R rows, V views of a row, B sequences of a batch (R * V), L tokens of a sequence, E hidden width,
P features of a pair, C outputs, 1 an axis of one.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pipeline.competitions.family import SMALLEST
from pipeline.competitions.task import Competition, Task
from pipeline.data.prompt import question_count

Ends = list[tuple[nn.Linear, Tensor]]
"""A head's last layers, each with what it should give on average for the head to give certain logits."""


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

    PARTS: ClassVar = 4
    """Vectors that `pair` makes of two."""

    def __init__(self, hidden: int, outputs: int, views: int) -> None:
        super().__init__()
        self.network = _two_layers(hidden, hidden * (1 if views == 1 else self.PARTS), outputs)

    def forward(self, pooled_RVE: Tensor) -> Tensor:
        """Returns logits_RC."""
        one_RE = pooled_RVE[:, 0]
        return self.network(one_RE if pooled_RVE.shape[1] == 1 else self.pair(one_RE, pooled_RVE[:, 1]))

    def pair(self, one_RE: Tensor, other_RE: Tensor) -> Tensor:
        """Returns pair_RP."""
        return _pair(one_RE, other_RE)

    def ends(self, eta_C: Tensor) -> Ends:
        """Returns what gives the logits `eta_C`."""
        return [(_last(self.network), eta_C)]


class SymmetricHead(PlainHead):
    """The same over what stays when two vectors change places: their sum, difference without its sign, product."""

    PARTS: ClassVar = 3

    def pair(self, one_RE: Tensor, other_RE: Tensor) -> Tensor:
        """Returns pair_RP."""
        return torch.cat([one_RE + other_RE, (one_RE - other_RE).abs(), one_RE * other_RE], dim=1)


class EquivariantHead(nn.Module):
    """s_A = f(a, b), s_B = f(b, a) and, with three classes, s_tie = g(a, b) + g(b, a)."""

    def __init__(self, hidden: int, task: Task, outputs: int) -> None:
        """`task` says which classes are A, B and tie."""
        super().__init__()
        self.first, self.second = task.decisive or (0, 1)
        self.win = _two_layers(hidden, 4 * hidden, 1)
        self.tie = _two_layers(hidden, 4 * hidden, 1) if outputs == 3 else None

    def forward(self, pooled_RVE: Tensor) -> Tensor:
        """Returns logits_RC of two views."""
        straight_RP = _pair(pooled_RVE[:, 0], pooled_RVE[:, 1])
        mirrored_RP = _pair(pooled_RVE[:, 1], pooled_RVE[:, 0])
        if self.tie is None:
            return torch.cat([self.win(straight_RP), self.win(mirrored_RP)], dim=1)
        logits_R1 = [self.tie(straight_RP) + self.tie(mirrored_RP)] * 3
        logits_R1[self.first], logits_R1[self.second] = self.win(straight_RP), self.win(mirrored_RP)
        return torch.cat(logits_R1, dim=1)

    def ends(self, eta_C: Tensor) -> Ends:
        """Returns what gives the logits `eta_C`, the sides' chances evened out."""
        ends = [(_last(self.win), torch.zeros(1))]
        if self.tie is not None:
            sides = torch.logsumexp(eta_C[[self.first, self.second]], dim=0) - math.log(2)
            tie = eta_C[3 - self.first - self.second] - sides
            ends.append((_last(self.tie), tie.reshape(1) / 2))  # it is asked twice
        return ends


class ChoiceHead(nn.Module):
    """One scorer for each option: of its vector, and of what tells this from the mean of all options."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.score = _two_layers(hidden, 2 * hidden, 1)

    def forward(self, pooled_RVE: Tensor) -> Tensor:
        """Returns logits_RC of one view per option."""
        apart_RVE = pooled_RVE - pooled_RVE.mean(dim=1, keepdim=True)
        return self.score(torch.cat([pooled_RVE, apart_RVE], dim=2)).squeeze(-1)

    def ends(self, eta_C: Tensor) -> Ends:
        """Returns what gives equal chances: a constant predictor knows no more of options."""
        return [(_last(self.score), torch.zeros(1))]


class AnswerHead(nn.Module):
    """Rows of the network's own language head: the logits of the tokens that answer, and nothing fresh but a bias.

    The rows stay as they came, so that what learns is how the network reads. A: answer tokens of a question.
    """

    def __init__(self, hidden: int, competition: Competition, cap: float | None) -> None:
        """`cap` is Gemma's: logits x become cap * tanh(x / cap) (Gemma Team 2024, arXiv 2408.00118)."""
        super().__init__()
        self.outcome, self.cap, outputs = competition.outcome, cap, len(competition.outputs)
        answers = {"classes": outputs, "ordered": outputs + 1}.get(self.outcome, 2)
        layers = [nn.Linear(hidden, answers) for _ in range(question_count(competition))]
        for each in layers:
            each.weight.requires_grad_(False)
        self.questions = nn.ModuleList(layers)

    @torch.no_grad()
    def take(self, weights_QAE: Tensor, biases_QA: Tensor) -> None:
        """Puts the language head's rows in."""
        for layer, weight_AE, bias_A in zip(self._layers(), weights_QAE, biases_QA, strict=True):
            layer.weight.copy_(weight_AE)
            assert layer.bias is not None
            layer.bias.copy_(bias_A)

    def forward(self, pooled_RVE: Tensor) -> Tensor:
        """Returns logits_RC: of classes; of yes against no for each label or option; of more than each score."""
        if self.outcome == "choice":
            logits_RVA = self.questions[0](pooled_RVE)
        else:
            logits_RVA = torch.stack([layer(pooled_RVE[:, v]) for v, layer in enumerate(self.questions)], dim=1)
        if self.cap:
            logits_RVA = self.cap * torch.tanh(logits_RVA / self.cap)
        if self.outcome == "classes":
            return logits_RVA[:, 0]
        if self.outcome == "ordered":
            # The log odds of more than a score: all chances above it against all up to it.
            scores_RA = logits_RVA[:, 0]
            odds_R = [
                scores_RA[:, s:].logsumexp(dim=1) - scores_RA[:, :s].logsumexp(dim=1)
                for s in range(1, scores_RA.shape[1])
            ]
            return torch.stack(odds_R, dim=1)
        return logits_RVA[..., 0] - logits_RVA[..., 1]

    def ends(self, eta_C: Tensor) -> Ends:
        """Returns what gives the logits `eta_C`."""
        layers = self._layers()
        if self.outcome == "classes":
            return [(layers[0], eta_C)]
        if self.outcome == "ordered":
            above = torch.cat([torch.ones(1), eta_C.sigmoid(), torch.zeros(1)])
            return [(layers[0], (above[:-1] - above[1:]).clamp_min(SMALLEST).log())]
        if self.outcome == "choice":
            return [(layers[0], torch.zeros(2))]
        return [(layer, torch.stack([eta, -eta]) / 2) for layer, eta in zip(layers, eta_C, strict=True)]

    def _layers(self) -> list[nn.Linear]:
        return [each for each in self.questions if isinstance(each, nn.Linear)]


def _pair(one_RE: Tensor, other_RE: Tensor) -> Tensor:
    """Returns pair_RP."""
    return torch.cat([one_RE, other_RE, (one_RE - other_RE).abs(), one_RE * other_RE], dim=1)


def _two_layers(hidden: int, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _last(layers: nn.Sequential) -> nn.Linear:
    assert isinstance(layers[-1], nn.Linear)
    return layers[-1]
