from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.averaging import Average, put


@given(st.floats(0.0, 0.9999), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_constant_stays_itself(decay: float, steps: int) -> None:
    weights = {"w": torch.randn(5, generator=torch.Generator().manual_seed(0))}
    average = Average(weights, decay)
    for step in range(steps):
        average.update(step)
    assert torch.allclose(average.mean["w"], weights["w"], atol=1e-6)


def test_it_follows_the_closed_form_after_its_warmup() -> None:
    weight, decay = torch.zeros(1, dtype=torch.float64), 0.1  # (1 + t) / (10 + t) is 0.1 at once
    average = Average({"w": weight}, decay)
    for step in range(30):
        weight.fill_(step + 1.0)
        average.update(step)
    # m(t) of the ramp w(t) = t: t - b (1 - b^t) / (1 - b)
    wanted = 30 - decay * (1 - decay**30) / (1 - decay)
    assert float(average.mean["w"]) == pytest.approx(wanted, abs=1e-12)


def test_early_steps_weigh_more_than_the_decay_would_let_them() -> None:
    weight = torch.zeros(1, dtype=torch.float64)
    average, wanted = Average({"w": weight}, 0.999), 0.0
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
    average = Average(weights, 0.5)
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
