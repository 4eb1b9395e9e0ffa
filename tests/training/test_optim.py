from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import encoder, lay_backbone, scratch, training_settings
from torch import nn

from pipeline.competitions.task import Competition
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.network import encoder_network
from pipeline.settings.finetuning import Training
from pipeline.settings.optimisation import RateSchedule
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.optim import adamw, bottom_and_head, layer_scale, parameter_groups, rate_at
from pipeline.training.state import State

PLAIN = training_settings(schedule={"rate": 1e-3})
quick = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, lmsys: Competition) -> nn.Module:
    """An encoder member's network of three layers."""
    artifacts = tmp_path_factory.mktemp("deep") / "artifacts"
    lay_backbone(artifacts, "deep", scratch("deberta-v3", layers=3))
    backbone = load_backbone(artifacts / "backbones" / "deep", "fp32", "cpu")
    return encoder_network(backbone, encoder(head="equivariant", pooling="attention"), lmsys.kind, 3, None)


def asked(**changed: Any) -> Training:
    return replace(PLAIN, **changed)


def groups(network: nn.Module, **changed: Any) -> dict[str, dict[str, Any]]:
    """Parameter name -> its group."""
    found = {id(each): group for group in parameter_groups(network, asked(**changed)) for each in group["params"]}
    return {name: found[id(each)] for name, each in network.named_parameters() if each.requires_grad}


@pytest.mark.parametrize(
    "changed", [{}, {"layer_decay": 0.8}, {"head_rate": 1e-2, "layer_decay": 0.9}, {"layer_floor": 0.1}]
)
def test_each_trainable_parameter_stands_in_one_group_once(network: nn.Module, changed: dict[str, Any]) -> None:
    listed = [id(each) for group in parameter_groups(network, asked(**changed)) for each in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(each) for each in network.parameters() if each.requires_grad}


def test_rates_rise_from_bottom_to_top(network: nn.Module) -> None:
    found = {name: group["scale"] for name, group in groups(network, layer_decay=0.5).items()}
    for name, scale in found.items():
        if "embeddings" in name and "rel_" not in name:
            assert scale == 0.5**3, name
        elif "rel_embeddings" in name or "encoder.LayerNorm" in name or ".layer.0." in name:
            assert scale == 0.5**2, name
        elif ".layer.1." in name:
            assert scale == 0.5, name
        else:
            assert scale == 1.0, name
    shared = [name for name in found if "rel_embeddings" in name or "encoder.LayerNorm" in name]
    assert len(shared) == 3  # a table, a norm's weight and bias


def test_rates_rise_from_the_floor_along_a_cosine(network: nn.Module) -> None:
    found = {name: group["scale"] for name, group in groups(network, layer_floor=0.1, head_rate=2e-3).items()}
    wanted = [0.1 + 0.9 * (1 - math.cos(math.pi * level / 3)) / 2 for level in range(4)]  # the embeddings, three layers
    for name, scale in found.items():
        if ".layer.1." in name:
            assert scale == pytest.approx(wanted[2]), name
        elif "rel_embeddings" in name or "encoder.LayerNorm" in name or ".layer.0." in name:
            assert scale == pytest.approx(wanted[1]), name
        elif ".embeddings." in name:
            assert scale == pytest.approx(wanted[0]) == 0.1, name
        else:
            assert scale == pytest.approx(1.0 if name.startswith("backbone.") else 2.0), name


@given(st.integers(1, 40), st.floats(0.01, 1.0))
@quick
def test_layers_never_move_faster_than_those_above(layers: int, share: float) -> None:
    for rule in ("layer_floor", "layer_decay"):
        rising = replace(PLAIN, **{rule: share})
        scales = [layer_scale(distance, layers, rising) for distance in range(layers + 1)]
        assert scales[0] == pytest.approx(1.0)
        assert all(above >= below > 0 for above, below in pairwise(scales))
    assert {layer_scale(distance, layers, PLAIN) for distance in range(layers + 1)} == {1.0}
    assert layer_scale(layers, layers, replace(PLAIN, layer_floor=share)) == pytest.approx(share)


def test_bottom_and_head_are_what_the_guard_means(network: nn.Module) -> None:
    names = {id(each): name for name, each in network.named_parameters()}
    bottom, head = ([names[id(each)] for each in group] for group in bottom_and_head(network))
    assert bottom and all(".layer.0." in name for name in bottom)
    assert head and {name.split(".")[0] for name in head} == {"head", "pooling"}
    assert bottom_and_head(nn.Linear(2, 2))[0] == []


def test_a_decay_of_1_is_flat_and_the_head_has_a_rate_of_its_own(network: nn.Module) -> None:
    assert {group["scale"] for group in groups(network, layer_decay=1.0).values()} == {1.0}
    found = groups(network, head_rate=5e-3)
    for name, group in found.items():
        assert group["scale"] == pytest.approx(1.0 if name.startswith("backbone.") else 5.0), name


def test_biases_and_norms_do_not_decay(network: nn.Module) -> None:
    parameters = dict(network.named_parameters())
    for name, group in groups(network).items():
        assert group["weight_decay"] == (0.01 if parameters[name].ndim >= 2 else 0.0), name


def test_what_is_frozen_stays_bit_by_bit_and_costs_no_state(lmsys: Competition) -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    layer[0].requires_grad_(False)
    before = layer[0].weight.clone()
    optimizer = adamw(layer, asked())
    optimizer.param_groups[0]["lr"] = 0.1
    layer(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(layer[0].weight, before)
    assert layer[0].weight not in optimizer.state
    assert layer[1].weight in optimizer.state


def test_the_first_step_is_as_large_as_the_rate() -> None:
    """With bias correction; without it, it would be 3.16 times as large."""
    layer = nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    optimizer = adamw(layer, asked(weight_decay=0.0))
    optimizer.param_groups[0]["lr"] = 1e-3
    layer(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    assert abs(layer.weight.item() - before) == pytest.approx(1e-3, rel=1e-3)


def eight_bits(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, State]:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Embedding(80, 128), nn.Linear(128, 64))  # both beyond the size that stays in 32 bits
    optimizer = adamw(network, asked(optimizer_bits=8))
    weights: dict[str, torch.Tensor] = dict(network.named_parameters())
    return network, optimizer, State(weights, optimizer, torch.amp.GradScaler(enabled=False), None)


def stepped(network: nn.Module, optimizer: torch.optim.Optimizer, steps: range, rate: float = 1e-3) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate
        ids = torch.randint(80, (6, 5), generator=torch.Generator().manual_seed(step))
        network(ids).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_moments_in_8_bits_learn_as_in_32_and_embeddings_keep_32() -> None:
    network, optimizer, _ = eight_bits()
    begin = [each.detach().clone() for each in network.parameters()]
    stepped(network, optimizer, range(20))
    linear, table = network[1].weight, network[0].weight
    assert optimizer.state[linear]["state1"].dtype == torch.uint8
    assert optimizer.state[table]["state1"].dtype == torch.float32
    torch.manual_seed(0)
    exact = nn.Sequential(nn.Embedding(80, 128), nn.Linear(128, 64))
    stepped(exact, adamw(exact, asked()), range(20))
    for before, found, wanted in zip(begin, network.parameters(), exact.parameters(), strict=True):
        assert (found - wanted).norm() < 0.2 * (wanted - before).norm()


def test_moments_in_8_bits_go_on_from_a_checkpoint_to_the_last_bit(tmp_path: Path) -> None:
    network, optimizer, state = eight_bits()
    stepped(network, optimizer, range(5))
    checkpoint = Checkpoint(tmp_path)
    state.save(checkpoint, "train", 5)
    stepped(network, optimizer, range(5, 9))
    again, other, restored = eight_bits(seed=1)
    assert restored.restore(checkpoint, "train") == 5
    stepped(again, other, range(5, 9))
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), again.parameters(), strict=True))


def schedule(decay: Any, warmup: float = 0.1) -> RateSchedule:
    return RateSchedule(rate=3e-4, warmup=warmup, decay=decay, decay_per_epoch=0.5)


@pytest.mark.parametrize("decay", ["linear", "cosine", "exponential", "none"])
@given(total=st.integers(2, 300), warmup=st.floats(0, 0.5), epochs=st.integers(1, 4))
@quick
def test_a_schedule_rises_to_its_peak_and_falls(decay: str, total: int, warmup: float, epochs: int) -> None:
    rates = [rate_at(step, total, max(1, total // epochs), schedule(decay, warmup)) for step in range(total)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(3e-4)
    assert abs(peak - warmup * total) <= 1
    assert all(low < high for low, high in pairwise(rates[: peak + 1]))
    later = rates[peak:]
    assert all(high >= low for high, low in pairwise(later))
    assert min(rates) > 0


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_it_ends_near_0(decay: str) -> None:
    assert rate_at(999, 1000, 100, schedule(decay)) < 3e-4 * 0.005


def test_exponential_decay_has_a_constant_ratio() -> None:
    rates = [rate_at(step, 400, 100, schedule("exponential", 0.0)) for step in range(400)]
    assert all(after / before == pytest.approx(0.5 ** (1 / 100)) for before, after in pairwise(rates))
    assert rates[100] == pytest.approx(rates[0] / 2)


@pytest.mark.parametrize("bits", [8, 32])
def test_a_discarded_run_leaves_no_embeddings_behind(bits: int) -> None:
    kept = []
    for _ in range(2):
        network = nn.Sequential(nn.Embedding(64, 128), nn.Linear(128, 128))
        optimizer = adamw(network, asked(optimizer_bits=bits))
        network(torch.arange(8)).square().sum().backward()
        optimizer.step()
        state = optimizer.state[network[0].weight]
        moments = state["exp_avg"] if bits == 32 else state["state1"]
        assert moments.dtype == torch.float32  # of embeddings always
        kept.append(weakref.ref(network[0].weight))
        del network, optimizer, state, moments
    gc.collect()
    assert [each() for each in kept] == [None, None]
