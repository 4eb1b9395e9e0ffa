"""The real shapes that the benchmarks build with random weights; no torch needed."""

from __future__ import annotations

from typing import Any

from pipeline.models.backbones.deberta_v3 import DEBERTA_V3

# As published: microsoft/deberta-v3-large and meta-llama/Meta-Llama-3-8B.
SHAPES: dict[str, dict[str, Any]] = {
    "deberta-v3-large": {
        "member": "large",
        "tokens": 768,
        "layers": 24,
        "config": DEBERTA_V3
        | {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 128100},
    },
    "llama-3-8b": {
        "member": "qwen",
        "tokens": 1024,
        "layers": 32,
        "config": {
            "model_type": "llama",
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "rms_norm_eps": 1e-5,
        },
    },
}


def deberta(hidden: int, heads: int, layers: int, dropout: float) -> dict[str, Any]:
    """The configuration of microsoft/deberta-v3-large in another size, with a small vocabulary."""
    size = {"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": 4 * hidden}
    rates = {"attention_probs_dropout_prob": dropout, "hidden_dropout_prob": dropout}
    return SHAPES["deberta-v3-large"]["config"] | size | rates | {"num_hidden_layers": layers, "vocab_size": 1000}
