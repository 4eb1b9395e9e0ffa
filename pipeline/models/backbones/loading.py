"""Backbones from disk, in the precision that a member asks for: fp32, fp16, bf16, or quantised by bitsandbytes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from pipeline.errors import PodiumError, ran_out
from pipeline.models.backbones.tokenizer import LOCAL
from pipeline.models.deberta.disentangled import use_fast_attention
from pipeline.models.deberta.dropout import use_fast_dropout

transformers_logging.set_verbosity_error()  # every fresh head would be announced as a weight that is missing
transformers_logging.disable_progress_bar()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of a faster kernel that is not on PyPI
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # peft's calls, not the user's

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
QUANTISED = ("nf4", "int8")
FAST = "fast"
"""The setting `attention` for our disentangled attention and our dropout; the other one keeps transformers'."""


def load_backbone(
    folder: Path, precision: str, device: str, dropout: float | None = None, attention: str = FAST
) -> nn.Module:
    """Returns the network without any head, in evaluation mode, its weights as saved.

    Quantised linear layers compute in fp32 on a CPU and in fp16 on a GPU (a T4 has no bf16). With `attention` FAST,
    DeBERTa gets ours.

    Raises: PodiumError where the folder's files do not make a network.
    """
    try:
        config = without_dropout(AutoConfig.from_pretrained(folder, **LOCAL), dropout)
        options: dict[str, Any] = {"config": config} | LOCAL
        if precision not in QUANTISED:
            network = AutoModel.from_pretrained(folder, dtype=DTYPES[precision], **options).eval().to(device)
            return accelerated(network) if attention == FAST else network
        compute = torch.float32 if device == "cpu" else torch.float16
        if getattr(config, "quantization_config", None) is None:
            options["quantization_config"] = quantisation(precision, compute)
        network = AutoModel.from_pretrained(folder, dtype=compute, device_map={"": device}, **options)
    except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError, SafetensorError) as error:
        if ran_out(error):
            raise
        raise PodiumError(f"{folder}: not loadable as a backbone: {' '.join(str(error).split())[:200]}") from error
    return settled(network.eval(), compute)


def fresh_backbone(folder: Path, device: str, attention: str = FAST) -> nn.Module:
    """Returns the network of config.json without its saved weights, which a member's own are about to replace."""
    config = without_dropout(AutoConfig.from_pretrained(folder, **LOCAL), 0.0)
    network = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False).eval().to(device)
    return accelerated(network) if attention == FAST else network


def without_dropout(config: Any, rate: float | None) -> Any:
    """Returns `config` with every dropout rate replaced by `rate`; unchanged for None.

    It must happen before the network is built: some keep their rates in modules of their own, not in nn.Dropout.
    """
    if rate is not None:
        for name, value in config.to_dict().items():
            if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, int | float):
                setattr(config, name, rate)
    return config


def accelerated(network: nn.Module) -> nn.Module:
    """Returns `network` with our attention, where it is a DeBERTa, and our dropout; weights and their names stay."""
    return use_fast_dropout(use_fast_attention(network))


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
    """Sets the same rules on every machine, whatever stood in a saved quantisation config."""
    from bitsandbytes.nn import Linear4bit

    for module in network.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype, module.compute_type_is_set = compute, True
            # bitsandbytes 0.50 repacks weights in place on CPUs with avx512_bf16; gradients are wrong ever after.
            module.support_avx512bf16_for_cpu = False
    return network
