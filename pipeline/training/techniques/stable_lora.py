"""Stable-LoRA (Wu et al. 2026, arXiv 2603.05204): adapters whose A shrinks in the first steps.

LoRA's A must not begin at zero, and what it begins with disturbs what is learned later. With each step A becomes
(1 - shrink) A, until its norm falls below that of its B times |A| / |B|, the ratio of their numbers of weights; then it
is left alone for good. The rule for the end is the authors' code's (github.com/Yize-Wu/Stable-LoRA, `shrink_ratio`),
which shrinks just before the optimiser's step. Here it follows the step, which differs by `shrink` of one step's move.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.settings.techniques import StableLora

A, B = ".lora_A.", ".lora_B."


class Shrinkage:
    """The adapters of one run, and which of them shrink still."""

    def __init__(self, weights: dict[str, Tensor], settings: StableLora) -> None:
        """Takes the network's `weights` that learn, by name."""
        self.settings = settings
        self.pairs = {name: (each, weights[name.replace(A, B)]) for name, each in weights.items() if A in name}
        self.going = {name: torch.ones((), dtype=torch.bool, device=a.device) for name, (a, _) in self.pairs.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Shrinks once, after a step of the optimiser; nothing of it makes the host wait for a GPU."""
        for name, (a, b) in self.pairs.items():
            self.going[name] &= a.norm() >= a.numel() / b.numel() * b.norm()
            a.mul_(torch.where(self.going[name], 1.0 - self.settings.shrink, 1.0))
