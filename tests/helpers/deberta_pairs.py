"""A small random DeBERTa twice, with transformers' attention and with ours, and batches to ask both about."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model

from pipeline.models.backbones.deberta_v3 import DEBERTA_V3
from pipeline.models.deberta.disentangled import use_fast_attention

VOCABULARY = 60


def pair(seed: int = 0, dropout: float = 0.0, **changed: Any) -> tuple[nn.Module, nn.Module]:
    """The same random network twice: as transformers has it, and with our attention."""
    torch.manual_seed(seed)
    shape = DEBERTA_V3 | {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "position_buckets": 8,
        "attention_probs_dropout_prob": dropout,
        "hidden_dropout_prob": dropout,
        "pad_token_id": 0,
    }
    theirs = DebertaV2Model(DebertaV2Config(**(shape | changed))).eval()
    for each in theirs.parameters():
        nn.init.normal_(each, std=0.6)  # large enough that positions matter
    return theirs, use_fast_attention(copy.deepcopy(theirs))


def batch(lengths: list[int], width: int, left: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(rows, width) ids and mask, padded on the right or on the left."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (len(lengths), width), generator=draw)
    place = torch.arange(width)
    mask = torch.stack([place >= width - each if left else place < each for each in lengths]).long()
    return ids * mask, mask


def states(network: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """(rows, width, hidden), zero where nobody looks."""
    found: Tensor = network(input_ids=ids, attention_mask=mask).last_hidden_state
    return found.float() * mask[..., None]


def gradients(network: nn.Module, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    found = states(network, ids, mask)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
