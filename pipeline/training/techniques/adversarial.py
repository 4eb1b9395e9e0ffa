"""Attacks: where the loss is worst near the weights (AWP) or near the embedded words (FGM).

Both go along gradients over their norm, so the scaler of fp16 changes nothing; where a gradient is not finite, nothing
is shifted. The weights are attacked once per step, along the gradients of all its batches, and come back to the last
bit, in the memory in which they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.settings.techniques import Awp, Fgm
from pipeline.training.optim import backbone_name

Technique = TypeVar("Technique", Awp, Fgm)
TINY = 1.0e-12


def attackable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the matrices that learn, but for embeddings: norms and biases are no target, tables mostly unused."""
    tables = {id(each.weight) for each in network.modules() if isinstance(each, nn.Embedding)}
    return {
        name: each
        for name, each in network.named_parameters()
        if each.requires_grad and each.ndim >= 2 and id(each) not in tables
    }


def table(network: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the table of word embeddings, where it learns."""
    backbone: Any = network.get_submodule(backbone_name(network))
    weight = backbone.get_input_embeddings().weight
    return {"words": weight} if weight.requires_grad else {}


@torch.no_grad()
def awp_shift(weight: Tensor, gradient: Tensor, settings: Awp) -> Tensor:
    """Returns step * ||w|| * g / ||g||, in the form of competitions cut to +-box * |w|; |w| is at least `floor`."""
    floor = settings.floor
    size = _norm(weight).clamp_min(floor * weight.numel() ** 0.5)
    shift = gradient * (settings.step * size / _norm(gradient).clamp_min(TINY))
    if settings.form == "competition":
        reach = settings.box * weight.abs().clamp_min(floor)
        shift = shift.clamp(-reach, reach)
    return shift


@torch.no_grad()
def table_shift(weight: Tensor, gradient: Tensor, settings: Fgm) -> Tensor:
    """Returns radius * ||w|| * g / ||g||, w being those rows of the table that somebody's gradient reaches."""
    reached = gradient.abs().amax(dim=1, keepdim=True) > 0
    size = _norm(torch.where(reached, weight, 0.0))  # not weight[reached]: how many, a GPU would have to say
    return gradient * (settings.radius * size / _norm(gradient).clamp_min(TINY))


def _norm(values: Tensor) -> Tensor:
    """Returns () the norm in fp64, as a number of the host would be, without making the host wait for it."""
    return values.norm().double()


@torch.no_grad()
def words_shift(gradient: Tensor, words: Tensor, mask: Tensor, rows: int, radius: float) -> Tensor:
    """Returns radius * ||w|| * g / ||g|| of each row, over its sequences' words w (sequences, length, hidden).

    0 at padding; a row whose gradient is 0 or not finite is left alone.
    """
    own, moved = (torch.where(mask[..., None] > 0, each.float(), 0.0) for each in (gradient, words))
    norms, sizes = (each.reshape(rows, -1).norm(dim=1) for each in (own, moved))
    usable = torch.isfinite(norms) & (norms > 0)
    factors = torch.where(usable, radius * sizes / norms.clamp_min(TINY), 0.0)
    per_sequence = factors.repeat_interleave(len(gradient) // rows)
    return torch.where(per_sequence[:, None, None] > 0, own * per_sequence[:, None, None], 0.0)


@contextmanager
def attacked(
    weights: dict[str, nn.Parameter], shift: Callable[[Tensor, Tensor, Technique], Tensor], settings: Technique
) -> Iterator[Tensor | None]:
    """Shifts the weights along their gradients for a while; then they have their own values again, bit by bit.

    Yields the realised (2,) ||v|| and ||w|| over all of them; None where none has a gradient. Where a gradient is not
    finite they are NaN, and nothing is shifted: what comes of it is not finite again, and nobody waits for a GPU to
    know.
    """
    targets = {name: each for name, each in weights.items() if each.grad is not None}
    gradients = {name: each.grad.float() for name, each in targets.items() if each.grad is not None}
    if not targets:
        yield None
        return
    usable = torch.stack([each.norm() for each in gradients.values()]).isfinite().all()
    own = {name: each.detach().clone() for name, each in targets.items()}
    shifts = {name: torch.where(usable, shift(own[name], gradients[name], settings), 0.0) for name in targets}
    sizes = [torch.stack([each.float().norm() for each in group.values()]).norm() for group in (shifts, own)]
    try:
        with torch.no_grad():
            for name, each in targets.items():
                each.add_(shifts[name])
        yield torch.where(usable, torch.stack(sizes), torch.nan)
    finally:
        with torch.no_grad():
            for name, each in targets.items():
                each.copy_(own[name])
