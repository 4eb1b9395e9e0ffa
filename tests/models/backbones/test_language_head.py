"""Rows of a causal network's language head, read from its files, against those of the network itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma2Config, GPTNeoXConfig, LlamaConfig, PhiConfig, Qwen3Config

from pipeline.errors import PodiumError
from pipeline.models.backbones.language_head import language_head

TINY = {
    "vocab_size": 50,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
NETWORKS: dict[str, Any] = {
    "Llama, untied": LlamaConfig(**TINY, tie_word_embeddings=False),
    "Llama, tied": LlamaConfig(**TINY, tie_word_embeddings=True),
    "Qwen3, tied": Qwen3Config(**TINY, head_dim=4, tie_word_embeddings=True),
    "Gemma-2": Gemma2Config(**TINY, head_dim=4, query_pre_attn_scalar=4),
    "Phi, with a bias": PhiConfig(**TINY),
    "GPT-NeoX": GPTNeoXConfig(**TINY, tie_word_embeddings=False),
}
IDS = np.array([[3, 7], [7, 49]])


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_rows_are_those_that_the_network_answers_with(name: str, form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(NETWORKS[name])
    if (bias := network.get_output_embeddings().bias) is not None:
        torch.nn.init.normal_(bias)
    network.save_pretrained(tmp_path)
    if form == "bin":
        file = tmp_path / "model.safetensors"
        torch.save(load_file(file), tmp_path / "pytorch_model.bin")
        file.unlink()
    weights, biases = language_head(tmp_path, IDS)
    states = torch.randn(5, 8)
    expected = network.get_output_embeddings()(states)[:, torch.from_numpy(IDS)]
    found = torch.einsum("re,qae->rqa", states, weights) + biases
    torch.testing.assert_close(found, expected)


def test_a_folder_without_a_head_is_one_line(tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_config(NETWORKS["Llama, untied"])
    network.model.save_pretrained(tmp_path)
    with pytest.raises(PodiumError, match="head tokens and `make rows` need the network's language head, and its"):
        language_head(tmp_path, IDS)
