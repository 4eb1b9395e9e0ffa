from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import training_settings

from pipeline.training.techniques.averaging import Average, add, put, share_of

PLAIN = training_settings()


def half_life(decay: float) -> float:
    """Of `ema` with which a run of one step has that decay."""
    return math.log(0.5) / math.log(decay)


def average_of(weights: dict[str, torch.Tensor], total: int = 1, **asked: Any) -> Average:
    share = share_of(replace(PLAIN, **asked), total)  # `ema` beyond what params.yaml may ask for
    assert share is not None
    return Average(weights, share)


@given(st.floats(0.01, 0.9999), st.integers(1, 40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_constant_stays_itself(decay: float, steps: int, swa: bool) -> None:
    weights = {"w": torch.randn(5, generator=torch.Generator().manual_seed(0))}
    average = average_of(weights, steps, **({"swa": decay} if swa and steps * decay < steps - 1 else {"ema": 0.3}))
    for step in range(steps):
        average.update(step)
    assert torch.allclose(average.mean["w"], weights["w"], atol=1e-6)


def test_it_follows_the_closed_form_after_its_warmup() -> None:
    weight, decay = torch.zeros(1, dtype=torch.float64), 0.1  # (1 + t) / (10 + t) is 0.1 at once
    average = average_of({"w": weight}, ema=half_life(decay))
    for step in range(30):
        weight.fill_(step + 1.0)
        average.update(step)
    # m(t) of the ramp w(t) = t: t - b (1 - b^t) / (1 - b)
    wanted = 30 - decay * (1 - decay**30) / (1 - decay)
    assert float(average.mean["w"]) == pytest.approx(wanted, abs=1e-12)


def test_early_steps_weigh_more_than_the_decay_would_let_them() -> None:
    weight = torch.zeros(1, dtype=torch.float64)
    average, wanted = average_of({"w": weight}, ema=half_life(0.999)), 0.0
    for step in range(20):
        weight.fill_(step + 1.0)
        average.update(step)
        share = min(0.999, (1 + step) / (10 + step))
        wanted = share * wanted + (1 - share) * (step + 1.0)
    assert float(average.mean["w"]) == pytest.approx(wanted, abs=1e-12)
    assert wanted > 5  # 0.999 alone would leave 0.2


def test_the_weights_come_back_bit_by_bit_in_the_same_memory() -> None:
    layer = torch.nn.Linear(7, 3)
    weights: dict[str, torch.Tensor] = dict(layer.named_parameters())
    average = average_of(weights, ema=1.0)
    with torch.no_grad():
        for each in weights.values():
            each.add_(torch.randn(each.shape) / 3)
    average.update(100)
    before = {name: (each.data_ptr(), each.detach().clone()) for name, each in weights.items()}
    with pytest.raises(KeyError), average.in_place():
        assert all(torch.equal(each, average.mean[name]) for name, each in weights.items())
        assert not torch.equal(weights["weight"], before["weight"][1])
        raise KeyError  # even then
    for name, each in weights.items():
        assert each.data_ptr() == before[name][0]
        assert torch.equal(each, before[name][1])


def test_put_copies_and_points_nowhere_else() -> None:
    target, source = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    place = target["w"].data_ptr()
    put(target, source)
    source["w"].zero_()
    assert target["w"].tolist() == [1.0, 1.0]
    assert target["w"].data_ptr() == place


def test_nothing_is_averaged_unasked() -> None:
    assert (PLAIN.ema, PLAIN.swa) == (0.0, 1.0) and share_of(PLAIN, 100) is None


@given(st.integers(2, 60), st.floats(0.0, 0.9))
@settings(max_examples=40, deadline=None)
def test_swa_is_the_equal_mean_of_what_comes_after_its_start(total: int, start: float) -> None:
    weight = torch.zeros(1, dtype=torch.float64)
    average = average_of({"w": weight}, total, swa=start)
    for step in range(total):
        weight.fill_(step + 1.0)
        average.update(step)
    first = int(start * total)
    assert float(average.mean["w"]) == pytest.approx((first + 1 + total) / 2)


@given(st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_mean_of_runs_is_the_arithmetic_one(runs: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weights = [{"a": torch.randn(4, generator=draw), "b": torch.randn(2, 3, generator=draw)} for _ in range(runs)]
    mean: dict[str, torch.Tensor] = {}
    for count, each in enumerate(weights, start=1):
        before = {name: tensor.clone() for name, tensor in each.items()}
        mean = add(each, mean, count)
        assert all(torch.equal(each[name], before[name]) for name in each)
    for name in ("a", "b"):
        assert torch.allclose(mean[name], torch.stack([each[name] for each in weights]).mean(dim=0), atol=1e-6)


def test_the_mean_of_equal_runs_is_that_run() -> None:
    weights = {"w": torch.randn(50)}
    assert torch.equal(add(weights, add(weights, {}, 1), 2)["w"], weights["w"])
