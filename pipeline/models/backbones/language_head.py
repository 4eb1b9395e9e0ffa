"""Some rows of a causal network's language head, read from its files without the rest of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig

from pipeline.errors import PodiumError
from pipeline.models.backbones.tokenizer import LOCAL

HEAD, EMBEDDINGS = ("lm_head", "embed_out"), ("embed_tokens", "wte", "embed_in", "word_embeddings")
"""What transformers' causal networks call the layer that gives the logits, and the table of the words."""


def language_head(folder: Path, ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Returns the weights (*ids, hidden) and biases (*ids,) of the tokens `ids`, in fp32, as they were saved.

    Where the two are tied, the embeddings are the head.

    Raises: PodiumError where the files hold none.
    """
    config = AutoConfig.from_pretrained(folder, **LOCAL)
    tied = getattr(config.get_text_config(), "tie_word_embeddings", False)
    wanted = np.unique(ids).tolist()
    weights = _rows(folder, [f"{name}.weight" for name in (EMBEDDINGS if tied else HEAD)], wanted)
    if not weights:
        raise PodiumError(
            f"{folder}: head tokens and `make rows` need the network's language head, and its weights are not there"
        )
    biases = {} if tied else _rows(folder, [f"{name}.bias" for name in HEAD], wanted)
    flat = ids.ravel().tolist()
    rows = torch.stack([weights[token] for token in flat]).view(*ids.shape, -1)
    return rows, torch.tensor([float(biases.get(token, 0.0)) for token in flat]).view(*ids.shape)


def _rows(folder: Path, names: list[str], tokens: list[int]) -> dict[int, Tensor]:
    """Returns token -> row of the first tensor whose name ends with one of `names`; nothing where there is none."""

    def wanted(key: str) -> bool:
        return any(key == name or key.endswith(f".{name}") for name in names)

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:  # it reads what is sliced, no more
            for key in filter(wanted, tensors.keys()):
                return {token: tensors.get_slice(key)[token : token + 1][0].float() for token in tokens}
    for file in sorted(folder.glob("*.bin")):
        loaded = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        for key in filter(wanted, loaded):
            return {token: loaded[key][token].float() for token in tokens}
    return {}
