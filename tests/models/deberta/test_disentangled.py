"""Our DeBERTa attention against that of transformers: the same numbers, over random shapes, masks and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from deberta_pairs import batch, gradients, pair, states
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import encoder, lay_backbone, scratch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder, DisentangledSelfAttention

from pipeline.members.encoder import trainable_backbone
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.deberta import attention_cpu, attention_gpu, packing, positions
from pipeline.models.deberta.attention_gpu import ByDistance
from pipeline.models.deberta.disentangled import FastAttention, FastEncoder, use_fast_attention

# What microsoft's checkpoints have, and what only other ones have.
VARIANTS: dict[str, dict[str, Any]] = {
    "v3": {},
    "v2, convolution": {"conv_kernel_size": 3, "norm_rel_ebd": "layer_norm"},
    "positions of their own": {"share_att_key": False},
    "c2p alone": {"pos_att_type": "c2p"},
    "p2c alone": {"pos_att_type": "p2c", "share_att_key": False},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 12},
    "no distances": {"relative_attention": False, "position_biased_input": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@given(
    width=st.integers(1, 90),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    left=st.booleans(),
    cost=st.sampled_from([0, 64]),
    chunk=st.sampled_from([1, 2**12, 2**19]),
    seed=st.integers(0, 9),
)
@settings(max_examples=16, deadline=None)
def test_states_and_gradients_are_those_of_transformers(
    variant: str, width: int, shares: list[float], left: bool, cost: int, chunk: int, seed: int
) -> None:
    # A cost of 0: whatever can be left out is. A chunk of 1: every row of every head alone.
    with patch.dict(packing.BLOCK_COST, cpu=cost), patch.object(attention_cpu, "CHUNK", chunk):
        _compare(variant, width, shares, left, seed)


def _compare(variant: str, width: int, shares: list[float], left: bool, seed: int) -> None:
    if variant == "no distances":
        width = min(width, 64)
    theirs, ours = pair(seed, **VARIANTS[variant])
    ids, mask = batch([max(1, round(share * width)) for share in shares], width, left, seed)
    expected, found = states(theirs, ids, mask), states(ours, ids, mask)
    assert expected.abs().max() > 0.01
    assert (expected - found).abs().max() < 1e-5
    with torch.inference_mode():
        assert (expected - states(ours, ids, mask)).abs().max() < 1e-5
    wanted, given_ = gradients(theirs, ids, mask), gradients(ours, ids, mask)
    assert wanted.keys() == given_.keys()
    # Some gradients are 0 but for rounding (a key's bias moves no softmax): the scale is that of all together.
    whole = torch.cat([each.flatten() for each in wanted.values()]).norm()
    for name, each in wanted.items():
        assert (each - given_[name]).norm() < 1e-4 * whole, name


def test_positions_matter_in_what_is_compared() -> None:
    theirs, _ = pair()
    ids, mask = batch([40], 40, left=False)
    before = states(theirs, ids, mask)
    nn.init.normal_(theirs.encoder.rel_embeddings.weight, std=0.6)
    assert (states(theirs, ids, mask) - before).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lengths", [[80, 80, 77], [80, 1, 1]], ids=["full", "nearly empty rows"])
def test_half_precision_stays_finite_and_within_its_rounding(dtype: torch.dtype, lengths: list[int]) -> None:
    theirs, ours = pair()
    ids, mask = batch(lengths, 80, left=False)
    exact = states(theirs, ids, mask)
    half = {name: states(each.to(dtype), ids, mask) for name, each in (("theirs", theirs), ("ours", ours))}
    assert all(each.isfinite().all() for each in half.values())
    error = {name: (each - exact).abs().mean() for name, each in half.items()}
    assert error["ours"] <= 1.2 * error["theirs"]


def test_autocast_gives_finite_gradients_near_the_exact_ones() -> None:
    theirs, ours = pair()
    ids, mask = batch([64, 60], 64, left=False)
    exact = gradients(theirs, ids, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, same = gradients(ours, ids, mask), gradients(theirs, ids, mask)
    norms = [sum((each[name] - exact[name]).square().sum() for name in exact).sqrt() for each in (found, same)]
    assert norms[0] <= 1.2 * norms[1]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs go the way of GPUs."""
    monkeypatch.setattr(attention_cpu, "attend", attention_gpu.attend)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("width", [50, 56])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_of_gpus_gives_the_same(variant: str, width: int, left: bool, fused: None) -> None:
    theirs, ours = pair(**VARIANTS[variant])
    ids, mask = batch([width, 1, 33], width, left)
    expected = states(theirs, ids, mask)
    assert (expected - states(ours, ids, mask)).abs().max() < 1e-5
    with torch.inference_mode():
        assert (expected - states(ours, ids, mask)).abs().max() < 1e-5
    wanted, found = gradients(theirs, ids, mask), gradients(ours, ids, mask)
    whole = torch.cat([each.flatten() for each in wanted.values()]).norm()
    assert all((wanted[name] - found[name]).norm() < 1e-4 * whole for name in wanted)


def test_the_way_of_gpus_stays_finite_in_fp16_beside_keys_that_nobody_sees(fused: None) -> None:
    _, ours = pair()
    ids, mask = batch([80, 1, 0], 80, left=True)  # the last row has no token at all
    found = gradients(ours.to(torch.float16), ids, mask)
    assert all(each.isfinite().all() for each in found.values())


@pytest.mark.parametrize("chunk", [1, 300, 10_000])
def test_the_way_back_on_a_cpu_is_the_derivative_under_dropout_too(chunk: int) -> None:
    slots = positions.slots_of(6, 4, 4, 16, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64, requires_grad=True)

    used = slots.last - slots.first + 1
    given_ = [drawn(3, 6, 4) for _ in range(3)] + [drawn(2, used, 2) for _ in range(2)]
    blocked = torch.zeros(1, 3, 1, 6, dtype=torch.float64)
    blocked[0, 1, 0, 4:] = attention_cpu.MASKED

    def call(*each: Tensor) -> Any:
        torch.manual_seed(0)
        return attention_cpu.Chunked.apply(*each, blocked, 2, slots, 0.7, 0.3)

    with patch.object(attention_cpu, "CHUNK", chunk):
        assert torch.autograd.gradcheck(call, given_)


@pytest.mark.parametrize("of_keys", [False, True])
def test_the_way_back_from_distances_is_the_derivative(of_keys: bool) -> None:
    slots = positions.slots_of(16, 4, 4, 16, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    content = torch.randn(2, 2, 16, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    used = slots.last - slots.first + 1
    placed = torch.randn(2, used, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    keys = torch.zeros(1, 32, 1, dtype=torch.float64) if of_keys else None
    assert torch.autograd.gradcheck(lambda *each: ByDistance.apply(*each, slots, keys), (content, placed))


def test_a_thousand_distances_that_share_a_slot_lose_no_digits_in_bf16() -> None:
    slots = positions.slots_of(1024, 4, 4, 16, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    content, above = (torch.rand(shape, generator=draw).bfloat16() for shape in ((1, 1, 1024, 8), (1, 1, 1024, 1024)))
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        placed = torch.ones(1, slots.last - slots.first + 1, 8, dtype=dtype, requires_grad=True)
        ByDistance.apply(content.to(dtype), placed, slots, None).backward(above.to(dtype))
        assert placed.grad is not None
        found.append(placed.grad.double())
    assert ((found[0] - found[1]).abs() / found[1]).max() < 2**-7


@pytest.mark.parametrize("way", ["cpu", "gpu"])
def test_dropout_of_attention_is_drawn_in_training_alone(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair(attention_probs_dropout_prob=0.5)
    monkeypatch.setattr(attention_cpu, "attend", {"cpu": attention_cpu, "gpu": attention_gpu}[way].attend)
    ids, mask = batch([30], 30, left=False)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return states(ours, ids, mask)

    assert torch.equal(drawn(1), drawn(2))
    ours.train()
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_its_expectation_under_dropout_is_the_undropped_one() -> None:
    _, ours = pair(attention_probs_dropout_prob=0.2, num_hidden_layers=1)
    attention: Any = ours.encoder.layer[0].attention.self
    hidden, mask = torch.randn(1, 12, 24), torch.ones(1, 1, 1, 12)
    rel = ours.encoder.get_rel_embedding()
    with torch.no_grad():
        still = attention(hidden, mask, rel_embeddings=rel)[0]
        attention.train()
        attention.pos_dropout.eval()
        many = torch.stack([attention(hidden, mask, rel_embeddings=rel)[0] for _ in range(4000)])
    error = many.std(dim=0) / len(many) ** 0.5
    assert ((many.mean(dim=0) - still).abs() / error).max() < 5.5


def test_an_update_of_the_weights_is_seen_at_once() -> None:
    theirs, ours = pair()
    ids, mask = batch([20, 18], 20, left=False)
    with torch.inference_mode():
        states(ours, ids, mask)  # what is remembered of it must not depend on weights, nor spoil a training pass
    assert gradients(ours, ids, mask)
    with torch.no_grad():
        for network in (theirs, ours):
            for each in network.parameters():
                each.mul_(1.1)
    assert (states(theirs, ids, mask) - states(ours, ids, mask)).abs().max() < 1e-5


def test_checkpointing_changes_no_gradient() -> None:
    _, ours = pair()
    ids, mask = batch([20, 11], 20, left=False)
    plain = gradients(ours.train(), ids, mask)
    ours.gradient_checkpointing_enable()
    again = gradients(ours, ids, mask)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_what_it_does_not_know_goes_the_way_of_transformers() -> None:
    theirs, ours = pair()
    ids, mask = batch([20, 11], 20, left=False)
    asked = {"input_ids": ids, "attention_mask": mask, "output_attentions": True}
    pairs = zip(theirs(**asked).attentions, ours(**asked).attentions, strict=True)
    real = mask[:, None, :, None]
    assert all(((one - other) * real).abs().max() < 1e-5 for one, other in pairs)
    hidden, square = torch.randn(2, 20, 24), mask[:, :, None] * mask[:, None, :]
    one, other = (each.encoder(hidden, square).last_hidden_state for each in (theirs, ours))
    assert ((one - other) * mask[..., None]).abs().max() < 1e-5


def test_names_and_weights_stay_and_other_networks_are_left_alone() -> None:
    theirs, ours = pair()
    assert list(theirs.state_dict()) == list(ours.state_dict())
    bert = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    before = [type(each) for each in bert.modules()]
    assert [type(each) for each in use_fast_attention(bert).modules()] == before


def test_few_tables_are_remembered() -> None:
    _, ours = pair()
    for width in range(1, 30):
        states(ours, *batch([width], width, left=False))
    assert positions.slots_of.cache_info().currsize == positions.KEPT_TABLES


def test_params_switch_between_the_two(tmp_path: Path) -> None:
    lay_backbone(tmp_path, "bert", scratch("deberta-v3"))
    folder = tmp_path / "backbones" / "bert"

    def kinds(network: nn.Module) -> set[type]:
        every = {type(each) for each in network.modules()}
        return every & {FastAttention, FastEncoder, DisentangledSelfAttention, DebertaV2Encoder}

    assert kinds(load_backbone(folder, "fp32", "cpu")) == {FastAttention, FastEncoder}
    for chosen, expected in (
        ("fast", {FastAttention, FastEncoder}),
        ("huggingface", {DisentangledSelfAttention, DebertaV2Encoder}),
    ):
        assert kinds(trainable_backbone(folder, encoder(attention=chosen), "cpu")) == expected
