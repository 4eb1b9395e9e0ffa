"""Linear layers in 4 and 8 bits, by bitsandbytes: how they are quantised, and what is the same on every machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

QUANTISED = ("nf4", "int8")


def quantisation(precision: str, compute: torch.dtype) -> BitsAndBytesConfig:
    """Returns how `nf4` and `int8` are quantised; what is not computes in `compute`."""
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def settled(network: nn.Module, compute: torch.dtype) -> nn.Module:
    """Sets the same rules on every machine, whatever a saved config says: everything computes in `compute`."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for each in (*network.parameters(), *network.buffers()):
        if each.dtype == torch.float16 and not hasattr(each, "quant_state"):
            each.data = each.data.to(compute)
    for module in network.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype, module.compute_type_is_set = compute, True
            weight: Any = module.weight
            weight.quant_state.dtype = compute
            # bitsandbytes 0.50 repacks weights in place on CPUs with avx512_bf16; gradients are wrong ever after.
            module.support_avx512bf16_for_cpu = False
        elif isinstance(module, Linear8bitLt):
            module.register_forward_hook(_forget_input)
    return network


def _forget_input(layer: Any, given: Any, answer: Tensor) -> None:
    """Lets go of the input that an 8-bit layer keeps for the gradient of its weights, which are frozen.

    bitsandbytes 0.50 keeps it as an attribute of its node, where gradient checkpointing cannot drop it: all layers'
    inputs would stay in memory until the backward pass, which never reads them.
    """
    node: Any = answer.grad_fn
    if node is not None and not layer.weight.requires_grad:
        if hasattr(node, "tensors"):  # on a GPU: quantised input, its outliers, and the input itself
            node.tensors = (None, None, None)
        else:
            node.A = None
