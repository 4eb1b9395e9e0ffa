"""The embedded words of a network's forward pass: caught for their gradient, or moved by a perturbation.

They are taken where they leave their table, or before DeBERTa's first norm, by hooks: so a frozen table and adapters
are no obstacle, and nothing is written into a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from pipeline.errors import PodiumError
from pipeline.training.optim import backbone_name

WORDS, NORMALISED = "words", "normalised"


@contextmanager
def caught(network: nn.Module, space: str = WORDS) -> Iterator[list[Tensor]]:
    """Collects the embedded words (sequences, length, hidden) of forward passes inside, which keep their gradient."""
    found: list[Tensor] = []

    def keep(words: Tensor) -> Tensor:
        if not words.requires_grad:  # a frozen table
            words = words.detach().requires_grad_(True)
        if words.grad_fn is not None:
            words.retain_grad()
        found.append(words)
        return words

    with _changed(network, space, keep):
        yield found


@contextmanager
def moved(network: nn.Module, by: Tensor, space: str = WORDS) -> Iterator[None]:
    """Moves the embedded words of forward passes inside `by` (sequences, length, hidden)."""
    with _changed(network, space, lambda words: words + by.to(words.dtype)):
        yield


@contextmanager
def _changed(network: nn.Module, space: str, change: Any) -> Iterator[None]:
    backbone: Any = network.get_submodule(backbone_name(network))
    if space == WORDS:
        handle = backbone.get_input_embeddings().register_forward_hook(lambda _, __, words: change(words))
    else:
        norm = getattr(getattr(backbone, "embeddings", None), "LayerNorm", None)
        if norm is None:
            raise PodiumError("training.smart.space: normalised needs a backbone that normalises its embeddings")

        def ahead(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            return (change(layer_norm(given[0], given[0].shape[-1:], eps=norm.eps)),)

        handle = norm.register_forward_pre_hook(ahead)
    try:
        yield
    finally:
        handle.remove()


class Noise:
    """The state of torch's generators, so that two passes can have the same dropout."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state(device) if device.startswith("cuda") else None

    def again(self) -> None:
        """Makes the next pass draw as the one after this was made."""
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu, self.device)
