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
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from pipeline.errors import PodiumError, ran_out
from pipeline.models.backbones.masks import use_right_padding
from pipeline.models.backbones.quantised import QUANTISED, quantisation, settled
from pipeline.models.backbones.tokenizer import LOCAL
from pipeline.models.deberta.disentangled import use_fast_attention
from pipeline.models.deberta.dropout import use_fast_dropout

transformers_logging.set_verbosity_error()  # every fresh head would be announced as a weight that is missing
transformers_logging.disable_progress_bar()
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # of a faster kernel that is not on PyPI
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # peft's calls, not the user's
# cuDNN's attention plans anew for every new shape of a batch, and Podium's hardly repeat; in torch 2.13 some of its
# gradients are NaN (pytorch/pytorch#196678). Whoever loads a network, in training or in the kernel, does without.
torch.backends.cuda.enable_cudnn_sdp(False)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FAST = "fast"
"""The setting `attention` for our disentangled attention and our dropout; the other one keeps transformers'."""


def load_backbone(
    folder: Path,
    precision: str,
    device: str,
    dropout: float | None = None,
    attention: str = FAST,
    half: torch.dtype = torch.float16,
    head: bool = False,
) -> nn.Module:
    """Returns the network without any head (or, of a decoder, with its language `head`), in evaluation mode, its
    weights as saved.

    Quantised linear layers and what lies between them compute in fp32 on a CPU, and on a GPU in `half` (a T4 has no
    bf16): under autocast in another half precision every sum of theirs and the adapters' would be fp32. With
    `attention` FAST, DeBERTa gets ours, and others on a GPU get masks for right padding.

    Raises: PodiumError where the folder's files do not make a network.
    """
    try:
        auto, begin = (AutoModelForCausalLM, "model.") if head else (AutoModel, "")
        options = reading(folder, dropout, begin)
        config = options["config"]
        if getattr(config, "use_cache", False):
            config.use_cache = False  # keys and values for a next token, which nobody asks for
        if precision in QUANTISED:
            # Whatever `half` is, the codes are those of inference: rounded to bf16 first, weights would get others.
            dtype = torch.float32 if device == "cpu" else torch.float16
            if getattr(config, "quantization_config", None) is None:
                options["quantization_config"] = quantisation(precision, dtype)
            network: Any = auto.from_pretrained(folder, dtype=dtype, device_map={"": device}, **options)
            settled(network, dtype if device == "cpu" else half)
        else:
            network = auto.from_pretrained(folder, dtype=DTYPES[precision], **options)
            network.to(device)
    except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError, SafetensorError) as error:
        if ran_out(error):
            raise
        raise PodiumError(f"{folder}: not loadable as a backbone: {' '.join(str(error).split())[:200]}") from error
    if attention == FAST and device != "cpu":
        use_right_padding(network)
    if attention == FAST and precision not in QUANTISED:
        accelerated(network)
    loaded: nn.Module = network.eval()
    return loaded


def reading(folder: Path, dropout: float | None = None, begin: str = "") -> dict[str, Any]:
    """Returns how transformers opens the network in `folder`: of one that also sees pictures, what reads text alone.

    begin: of the names of its weights; `model.` where a language head stands beside them.
    """
    config = AutoConfig.from_pretrained(folder, **LOCAL)
    text = config.get_text_config()
    names = {} if text is config else {"key_mapping": {r"^(model\.)?language_model\.(model\.)?": begin}}
    return {"config": without_dropout(text, dropout)} | names | LOCAL


def fresh_backbone(folder: Path, device: str, attention: str = FAST) -> nn.Module:
    """Returns the network of config.json without its saved weights, which a member's own are about to replace.

    Until then its weights are whatever stood in memory: none is drawn.
    """
    config = without_dropout(AutoConfig.from_pretrained(folder, **LOCAL), 0.0)
    with no_init_weights():
        network = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    network.tie_weights()
    network.eval().to(device)
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
