"""The common beginning of a row's sequences, computed once: the answers and gradients are those of whole sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import questions
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModel, Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config

from pipeline.data.text import Encoded
from pipeline.inference.forward import batch_tensors
from pipeline.models.backbones.masks import use_right_padding
from pipeline.models.heads import Pooling
from pipeline.models.shared_prefix import PREFIXES, common_prefixes, last_states, whole_states

TINY = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
WINDOW = 48
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**TINY),
    "qwen3": Qwen3Config(**TINY, head_dim=4),
    "gemma2": Gemma2Config(**TINY, head_dim=4, query_pre_attn_scalar=4, sliding_window=WINDOW),
    "mistral": MistralConfig(**TINY, head_dim=4, sliding_window=WINDOW),
}


def network(name: str) -> Any:
    torch.manual_seed(1)
    return AutoModel.from_config(CONFIGS[name]).eval()


NETWORKS = {name: network(name) for name in CONFIGS} | {"llama, as on a GPU": network("llama")}
use_right_padding(NETWORKS["llama, as on a GPU"])


def drawn(seed: int, rows: int, views: int, most: int) -> Encoded:
    """Rows of sequences with a common beginning, of which some endings begin alike, too."""
    draw = np.random.default_rng(seed)
    sequences = []
    for _ in range(rows):
        common = draw.integers(1, 60, draw.integers(1, most))
        for _ in range(views):
            sequences.append(np.concatenate([common, draw.integers(1, 4, draw.integers(1, 8))]).astype(np.int32))
    return Encoded(sequences, views, {}, np.zeros(rows, dtype=bool))


def pooled(states_of: Any, backbone: Any, inputs: tuple[Tensor, Tensor]) -> Tensor:
    states, mask = states_of(backbone, *inputs)
    return Pooling("last", 16)(states, mask)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.sampled_from([2, 20, 60]))
@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_follows_a_common_beginning_is_what_whole_sequences_give(
    name: str, seed: int, rows: int, views: int, most: int
) -> None:
    encoded = drawn(seed, rows, views, most)
    inputs = batch_tensors(encoded, np.arange(rows), 0, "cpu")
    with torch.inference_mode():
        whole, found = (pooled(each, NETWORKS[name], inputs) for each in (whole_states, last_states))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 10**6), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_a_common_beginning_ends_before_the_first_difference_and_leaves_a_token_to_each(seed: int, views: int) -> None:
    sequences = drawn(seed, 3, views, 9).ids
    for row, length in enumerate(common_prefixes(sequences, views)):
        own = sequences[row * views : (row + 1) * views]
        assert all(len(each) > length for each in own)
        assert len({tuple(each[:length]) for each in own}) == 1
        longer = {tuple(each[: length + 1]) for each in own}
        assert len(longer) > 1 or length == min(map(len, own)) - 1


def test_gradients_are_those_of_whole_sequences() -> None:
    backbone, inputs = network("llama"), batch_tensors(drawn(3, 3, 4, 40), np.arange(3), 0, "cpu")
    gradients = []
    for states_of in (whole_states, last_states):
        backbone.zero_grad()
        pooled(states_of, backbone, inputs).pow(3).sum().backward()
        gradients.append({key: each.grad.clone() for key, each in backbone.named_parameters()})
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, rtol=1e-4, atol=1e-4)


def test_a_gpu_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, inputs = NETWORKS["llama, as on a GPU"], batch_tensors(drawn(3, 3, 4, 40), np.arange(3), 0, "cpu")
    with questions(monkeypatch) as asked:
        pooled(last_states, backbone, inputs).sum().backward()
    assert not asked


def computed(backbone: Any, inputs: tuple[Tensor, Tensor]) -> list[int]:
    """Tokens of each pass through the network."""
    passes: list[int] = []
    hook = backbone.get_input_embeddings().register_forward_hook(lambda _, given, __: passes.append(given[0].numel()))
    with torch.inference_mode():
        last_states(backbone, *inputs)
    hook.remove()
    return passes


def test_it_computes_fewer_tokens_and_only_where_that_saves_some_and_no_window_ends() -> None:
    long = np.arange(1, 41, dtype=np.int32)
    options = [np.append(long, [3 + k]).astype(np.int32) for k in range(5)]
    encoded = Encoded(options, 5, {}, np.zeros(1, dtype=bool))
    inputs = batch_tensors(encoded, np.arange(1), 0, "cpu")
    assert computed(NETWORKS["llama"], inputs) == [40, 5 * 8]  # of 5 * 48
    assert computed(NETWORKS["mistral"], inputs) == [40, 5 * 8]
    longer = [np.concatenate([long, each]).astype(np.int32) for each in options]
    wide = batch_tensors(Encoded(longer, 5, {}, np.zeros(1, dtype=bool)), np.arange(1), 0, "cpu")
    assert computed(NETWORKS["mistral"], wide) == [5 * 88]
    assert len(computed(NETWORKS["llama"], wide)) == 2
    alone = batch_tensors(Encoded(options, 1, {}, np.zeros(5, dtype=bool)), np.arange(5), 0, "cpu")
    assert computed(NETWORKS["llama"], alone) == [5 * 48]
    apart = [each[k:] for k, each in enumerate(options)]
    others = batch_tensors(Encoded(apart, 5, {}, np.zeros(1, dtype=bool)), np.arange(1), 0, "cpu")
    assert computed(NETWORKS["llama"], others) == [5 * 48]
    delattr(inputs[1], PREFIXES)
    assert computed(NETWORKS["llama"], inputs) == [5 * 48]
