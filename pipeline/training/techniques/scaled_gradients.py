"""Dynamic scaled gradient descent (Bui & Wang 2026, arXiv 2604.27987): rows that are answered rightly move the network
less, so that their gradients do not cancel those of the rows that are still wrong. That is where a run gets stuck.

The paper's abstract fixes that the gradient of a right row is multiplied by a scaler below 1 which changes during
training, and that of a wrong row is left alone. Its formula for the scaler was not available to us: s(t) here is ours.
It rises along a line from 1 - strength at the first step to 1 at `until` of the steps, after which the loss is the
plain one again: probabilities learned from scaled gradients to the end would be too unsure of what is known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.competitions.family import Categorical, Family
from pipeline.settings.techniques import Dsgd


def scaler_at(progress: float, settings: Dsgd) -> float:
    """Returns s(t), what remains of a right row's gradient, at `progress` (0 to 1) through the run."""
    return 1.0 - settings.strength * max(0.0, 1.0 - progress / settings.until)


def right(family: Family, logits: Tensor, targets: Tensor) -> Tensor:
    """Returns what is answered rightly, (rows, 1) of classes and options, else (rows, outputs).

    logits (rows, outputs); targets as a batch of pipeline/training/objectives/supervised.py has them. Of several labels
    and of ordered scores each yes or no is a question of its own; what is not known is never right.
    """
    if isinstance(family, Categorical):
        classes = targets if targets.ndim == 1 else targets.argmax(dim=1)  # the likeliest of a soft label
        return (logits.argmax(dim=1) == classes)[:, None]
    return (logits > 0) == torch.where(targets.isfinite(), targets > 0.5, logits <= 0)


def scale_right_rows(family: Family, logits: Tensor, targets: Tensor, scaler: float) -> None:
    """Multiplies what the backward pass brings to the logits of right rows by `scaler`; no loss changes its value.

    A penalty that goes back through the same logits is scaled with them.
    """
    kept = torch.where(right(family, logits.detach(), targets), scaler, 1.0)
    logits.register_hook(lambda gradient: gradient * kept)
