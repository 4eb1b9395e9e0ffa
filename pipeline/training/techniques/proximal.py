"""Penalties on change: of the answer when the words move (SMART), since the last steps (Bregman), between two draws of
dropout (R-Drop).

All use the symmetric divergence KL(p || q) + KL(q || p) in fp32 with gradients through both sides, summed over the
rows: doubling a batch doubles it, and the loop divides by the rows. In an exponential family it is the product of the
differences of the means and of the natural parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline.competitions.family import Categorical, Family, Gaussian
from pipeline.settings.techniques import Proximal, Smart
from pipeline.training.techniques.perturbation import Noise, moved

SCALE = 2.0**12
EARLY = 0.1
"""Share of the steps in which the teacher follows more quickly."""


def divergence(family: Family, logits: Tensor, others: Tensor) -> Tensor:
    """Returns the sum over the rows of KL(p || q) + KL(q || p), in nats, of (rows, outputs) logits.

    Several labels or numbers count by their mean, as in the family's loss.
    """
    p, q = logits.float(), others.float()
    if isinstance(family, Categorical):
        p, q = p.log_softmax(dim=1), q.log_softmax(dim=1)
        return ((p.exp() - q.exp()) * (p - q)).sum()
    apart = p - q if isinstance(family, Gaussian) else p.sigmoid() - q.sigmoid()
    return (apart * (p - q)).mean(dim=1).sum()


def smoothness(
    family: Family,
    network: nn.Module,
    answer: Callable[[], Tensor],
    logits: Tensor,
    words: Tensor,
    mask: Tensor,
    noise: Noise,
    settings: Smart,
) -> Tensor:
    """SMART's R_s: the divergence of `logits` from what `answer` gives for words moved to where it is worst.

    `words` (sequences, length, hidden) says where words stand, `mask` which are padding; every pass has the dropout
    that follows `noise`, so that unmoved words cost nothing.
    """
    space, real = settings.space, mask[..., None].float()
    delta = settings.noise * _normal(words)
    if settings.form == "sift":
        delta = delta.clamp(-2 * settings.noise, 2 * settings.noise)
    delta = delta * real

    def moved_answer(by: Tensor) -> Tensor:
        noise.again()
        with moved(network, by, space):
            return answer()

    for _ in range(settings.ascents):
        delta.requires_grad_(True)
        # Scaled, for what is tiny vanishes in fp16; the step is along gradient / max |gradient|.
        (gradient,) = torch.autograd.grad(SCALE * divergence(family, moved_answer(delta), logits.detach()), delta)
        delta = ascended(delta.detach(), gradient, real, settings)
    return divergence(family, moved_answer(delta), logits)


def ascended(delta: Tensor, gradient: Tensor, real: Tensor, settings: Smart) -> Tensor:
    """Returns the perturbation after an ascent: d + step * g / max|g| by sequence (SiFT: by word), in the box."""
    dims = (2,) if settings.form == "sift" else (1, 2)
    largest = gradient.abs().amax(dim=dims, keepdim=True)
    unit = torch.where(torch.isfinite(largest) & (largest > 0), gradient / largest.clamp_min(1e-30), 0.0)
    stepped = (delta + settings.step * unit) * real
    radius = settings.radius
    return stepped if radius is None else stepped.clamp(-radius, radius)


class Teacher:
    """The momentum average of the weights, whose answers the network must stay near."""

    def __init__(self, weights: dict[str, Tensor], settings: Proximal, total: int) -> None:
        self.weights, self.settings, self.total = weights, settings, total
        self.mean = {name: each.detach().clone() for name, each in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follows the weights after step `step`."""
        momentum = self.settings.early if step < EARLY * self.total else self.settings.momentum
        for name, each in self.weights.items():
            self.mean[name].lerp_(each, 1 - momentum)

    @torch.no_grad()
    def answer(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        """Its logits, without dropout; the network's mode is what it was."""
        modes = {module: module.training for module in network.modules()}
        network.eval()
        try:
            found: Tensor = functional_call(network, self.mean, inputs)
            return found
        finally:
            for module, mode in modes.items():
                module.training = mode


def _normal(like: Tensor) -> Tensor:
    return torch.randn(like.shape, dtype=torch.float32, device=like.device)
