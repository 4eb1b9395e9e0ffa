"""A network that computes in half precision, raised to fp32 for a moment and back to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)


def computes_in_fp32(network: nn.Module) -> bool:
    """Returns whether no parameter, buffer or 4-bit layer of `network` works in half precision."""
    return not _halves(network) and not _four_bit(network)


@contextmanager
def in_fp32(network: nn.Module) -> Iterator[None]:
    """Makes `network` compute in fp32 as far as it can; afterwards it is what it was, whatever happened.

    Parameters and buffers of fp16 and bf16 are raised, and bitsandbytes' 4-bit layers compute in fp32. Its int8 layers
    go on rounding their inputs to fp16 and int8: only what lies between them gains range.
    """
    tensors, layers = _halves(network), _four_bit(network)
    # The halves stay in memory, so that there is nothing to allocate on the way back.
    before = [(each, each.data) for each in tensors]
    computed = [(each, each.compute_dtype) for each in layers]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.float()
        for layer in layers:
            layer.compute_dtype = torch.float32
        yield
    finally:
        for tensor, data in before:
            tensor.data = data
        for layer, dtype in computed:
            layer.compute_dtype = dtype


def _halves(network: nn.Module) -> list[Tensor]:
    """Returns the tensors that hold numbers in half precision: quantised weights may be packed into any dtype."""
    everything = chain(network.parameters(), network.buffers())
    return [each for each in everything if each.dtype in HALVES and not hasattr(each, "quant_state")]


def _four_bit(network: nn.Module) -> list[Any]:
    """Returns the 4-bit layers that compute in half precision."""
    # By what they have: encoders do without bitsandbytes.
    return [each for each in network.modules() if getattr(each, "compute_dtype", None) in HALVES]
