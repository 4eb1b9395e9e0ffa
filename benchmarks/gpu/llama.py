"""A decoder's base with random weights, built on its device layer by layer: in bf16, or quantised as Podium does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from pipeline.models.backbones.loading import DTYPES
from pipeline.models.backbones.masks import use_right_padding
from pipeline.models.backbones.quantised import QUANTISED, quantisation, settled

SPREAD = 0.02
"""Standard deviation of the weights."""


def random_base(config: dict[str, Any], precision: str, device: str) -> Any:
    """As pipeline.models.backbones.loading.load_backbone would have loaded it, without 16 GB on disk or host.

    What it holds beside its result is one weight in half precision.
    """
    compute = torch.float32 if device == "cpu" else torch.float16
    dtype = compute if precision in QUANTISED else DTYPES[precision]
    built = AutoConfig.for_model(**config)
    with torch.device("meta"):
        network = AutoModel.from_config(built, dtype=dtype).eval()
    if precision in QUANTISED:
        network = replace_with_bnb_linear(network, quantization_config=quantisation(precision, compute))
        setattr(network, "is_loaded_in_4bit" if precision == "nf4" else "is_loaded_in_8bit", True)  # what peft asks
    for module in network.modules():
        for name, each in list(module.named_parameters(recurse=False)):
            setattr(module, name, _drawn(each, dtype, device))
        _after_its_weight(module)
    with torch.device(device):  # its frequencies are computed, and on the meta device there was nothing to compute
        network.rotary_emb = type(network.rotary_emb)(built)
    if device != "cpu":
        use_right_padding(network)
    return settled(network, compute) if precision in QUANTISED else network


def _drawn(empty: nn.Parameter, dtype: torch.dtype, device: str) -> nn.Parameter:
    """The weight in place of an empty one: 1 in a norm, else random; quantised by its own class where it has one."""
    values: Tensor = torch.ones(empty.shape, dtype=dtype, device=device)
    if empty.ndim > 1:
        values.normal_(0.0, SPREAD)
    if type(empty) is nn.Parameter:
        return nn.Parameter(values, requires_grad=False)
    # bitsandbytes quantises what comes from the host.
    about = {key: value for key, value in vars(empty).items() if key not in ("CB", "SCB")}
    return type(empty)(values.cpu(), **about | {"requires_grad": False}).to(device)


def _after_its_weight(module: nn.Module) -> None:
    """A 4-bit layer keeps its weight's state beside it."""
    weight = getattr(module, "weight", None)
    if hasattr(weight, "quant_state"):
        weight.module, module.quant_state = module, weight.quant_state
