"""Our dropout against what dropout is: each element alone, at its rate, and what is kept made up for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import lay_backbone, scratch
from torch import nn

from pipeline.models.backbones.loading import load_backbone
from pipeline.models.deberta.dropout import LEVELS, FastDropout, noise_like, use_fast_dropout


def fast(rate: float) -> FastDropout:
    module = use_fast_dropout(nn.Dropout(rate)).train()
    assert isinstance(module, FastDropout)
    return module


@given(rate=st.floats(0.001, 0.999), seed=st.integers(0, 2**31), size=st.integers(20_000, 30_000))
@settings(max_examples=40, deadline=None)
def test_elements_are_dropped_at_the_rate_and_the_rest_makes_up_for_them(rate: float, seed: int, size: int) -> None:
    torch.manual_seed(seed)
    noise = noise_like(torch.empty(size), rate)
    dropped = round(rate * LEVELS) / LEVELS
    assert set(noise.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - dropped)).item()}
    spread = (size * dropped * (1 - dropped)) ** 0.5
    assert abs(int((noise == 0).sum()) - size * dropped) < 5.5 * spread + 1


def test_elements_are_drawn_independently() -> None:
    torch.manual_seed(0)
    kept = (noise_like(torch.empty(1000, 1000), 0.5) > 0).double() - 0.5
    for apart in (1, 2, 3, 4, 8, 1000):
        flat = kept.flatten()
        assert abs(float((flat[apart:] * flat[:-apart]).mean()) * 4) < 5.5 / 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 1, 7)])
def test_any_shape_and_precision_and_the_gradient_is_the_noise(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    states = torch.full(shape, 3.0, dtype=dtype, requires_grad=True)
    torch.manual_seed(1)
    dropped = fast(0.5)(states)
    assert dropped.shape == states.shape and dropped.dtype == dtype
    assert set(dropped.flatten().tolist()) <= {0.0, 6.0}
    dropped.sum().backward()
    assert states.grad is not None and torch.equal(states.grad * 3, dropped.detach())


def test_equal_seeds_give_equal_draws_and_evaluation_none() -> None:
    module, states = fast(0.3), torch.randn(50, 41)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(module(states))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert module.eval()(states) is states


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_nothing_and_everything_are_what_they_are_in_torch(rate: float) -> None:
    states = torch.randn(9)
    assert torch.equal(fast(rate)(states), nn.Dropout(rate)(states))


@pytest.mark.parametrize(("attention", "expected"), [("fast", FastDropout), ("huggingface", nn.Dropout)])
def test_backbones_have_it_where_params_say_so(tmp_path: Path, attention: str, expected: type) -> None:
    lay_backbone(tmp_path, "bert", scratch("deberta-v3"))
    network = load_backbone(tmp_path / "backbones" / "bert", "fp32", "cpu", attention=attention)
    assert {type(each) for each in network.modules() if isinstance(each, nn.Dropout)} == {expected}
