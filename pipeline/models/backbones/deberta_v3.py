"""What all sizes of microsoft/deberta-v3-* have in common, for networks that are built in their likeness."""

from __future__ import annotations

from typing import Any

DEBERTA_V3: dict[str, Any] = {
    "model_type": "deberta-v2",
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "position_buckets": 256,
    "max_relative_positions": -1,
    "relative_attention": True,
    "pos_att_type": "p2c|c2p",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
"""Keys of transformers' DebertaV2Config."""
