"""Attacks on weights and on words: their sizes and directions, what they leave, and what they do to a step."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import fitted, furthest, step_of
from networks import training_settings
from torch import nn

from pipeline.settings.techniques import Awp, Fgm
from pipeline.training import gradients as module
from pipeline.training.devices.device import Device
from pipeline.training.gradients import gradients
from pipeline.training.techniques.adversarial import attackable, attacked, awp_shift, table, table_shift, words_shift
from pipeline.training.techniques.perturbation import NORMALISED, caught, moved

quick = settings(max_examples=60, deadline=None)


@given(st.integers(0, 999), st.floats(1e-4, 0.5), st.floats(0.0, 0.5))
@quick
def test_awp_has_the_size_and_the_direction_of_its_formula(seed: int, step: float, box: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, gradient = torch.randn(6, 5, generator=draw), torch.randn(6, 5, generator=draw)
    free = awp_shift(weight, gradient, Awp(form="paper", step=step, floor=0.0))
    assert torch.allclose(free, step * weight.norm() * gradient / gradient.norm(), atol=1e-6)
    cut = awp_shift(weight, gradient, Awp(step=step, box=box, floor=0.0))
    assert (cut.abs() <= box * weight.abs() + 1e-7).all()
    huge = awp_shift(weight, gradient, Awp(step=1e6, box=box, floor=0.0))
    assert torch.allclose(huge, box * weight.abs() * gradient.sign(), atol=1e-6)
    assert torch.allclose(
        free, awp_shift(weight, gradient * 2.0**16, Awp(form="paper", step=step, floor=0.0)), rtol=1e-5
    )


def test_on_a_quadratic_the_loss_rises(made: Any) -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    loss = (weight**2).sum() / 2
    loss.backward()
    with attacked({"w": weight}, awp_shift, Awp(form="paper", step=0.1)) as size:
        assert size is not None and float(size[0] / size[1]) == pytest.approx(0.1)
        assert float((weight**2).sum() / 2) == pytest.approx(float(loss) * 1.1**2)


def test_weights_that_begin_at_nothing_are_attacked_by_the_floor() -> None:
    weight, gradient = torch.zeros(4, 4), torch.randn(4, 4)
    assert not awp_shift(weight, gradient, Awp(floor=0.0)).any()
    shift = awp_shift(weight, gradient, Awp(floor=1e-2, step=0.5, box=0.5))
    assert 0 < float(shift.abs().max()) <= 0.5 * 1e-2 + 1e-9


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("attack", [{"awp": {}}, {"awp": {"clean": True}}, {"fgm": {}}, {"fgm": {"clean": False}}])
def test_after_an_attack_every_weight_is_what_and_where_it_was(kind: str, attack: dict[str, Any], made: Any) -> None:
    learner = made(kind, dropout=0.1, **attack)
    before = {name: (each.data_ptr(), each.detach().clone()) for name, each in learner.network.named_parameters()}
    clean = step_of(made(kind, dropout=0.1))
    found = step_of(learner)
    for name, each in learner.network.named_parameters():
        assert each.data_ptr() == before[name][0] and torch.equal(each, before[name][1]), name
    assert found.keys() == clean.keys() and furthest(found, clean) > 0


def test_even_an_error_brings_the_weights_back() -> None:
    weight = nn.Parameter(torch.randn(3, 3))
    own = weight.detach().clone()
    weight.grad = torch.randn(3, 3)
    with pytest.raises(KeyError), attacked({"w": weight}, awp_shift, Awp()):
        assert not torch.equal(weight, own)
        raise KeyError
    assert torch.equal(weight, own)


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_is_no_direction(broken: float, made: Any) -> None:
    weights = {"a": nn.Parameter(torch.randn(3, 3)), "b": nn.Parameter(torch.randn(2, 2))}
    own = {name: each.detach().clone() for name, each in weights.items()}
    for each in weights.values():
        each.grad = torch.randn(each.shape)
    weights["b"].grad[0, 0] = broken  # type: ignore[index]
    with attacked(weights, awp_shift, Awp()) as size:
        assert size is not None and size.isnan().all()
        assert all(torch.equal(each, own[name]) for name, each in weights.items())


def test_the_loss_scale_changes_nothing(made: Any) -> None:
    found = []
    for scale in (1.0, 2.0**16):
        learner = made(awp={}, fgm={})
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        one = replace(learner, scaler=scaler)
        found.append({name: each / scale for name, each in step_of(one).items()})
    assert furthest(*found) < 1e-5


@pytest.mark.parametrize(
    "attack", [{"awp": {}}, {"awp": {"clean": True}}, {"fgm": {}}, {"fgm": {"on": "table"}}, {"fgm": {"clean": False}}]
)
def test_four_batches_of_two_are_one_of_eight(attack: dict[str, Any], made: Any) -> None:
    small, large = made(budget=200, **attack), made(**attack)
    assert len(small.objective.epoch(0)[0]) >= 4 and len(large.objective.epoch(0)[0]) == 1
    one, other = step_of(small), step_of(large)
    assert furthest(one, other) < 2e-6 * max(float(each.abs().max()) for each in other.values()) + 1e-6


def test_without_reach_the_attack_is_the_plain_run(made: Any, tmp_path: Path) -> None:
    found = []
    for number, attack in enumerate(({}, {"awp": {"box": 0.0, "floor": 0.0}})):
        learner = made(dropout=0.1, **attack)
        fitted(learner, tmp_path / str(number))
        found.append({name: each.detach() for name, each in learner.network.named_parameters()})
    assert furthest(*found) == 0.0


@pytest.mark.parametrize("attack", [{"awp": {"step": 1e-3}}, {"fgm": {"radius": 0.05}}])
def test_the_attacked_loss_is_higher(attack: dict[str, Any], made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = made(rows=120, **attack)
    seen: list[float] = []
    own = module._loss
    monkeypatch.setattr(
        module, "_loss", lambda *given: (loss := own(*given), seen.append(float(loss.minimised.detach())))[0]
    )
    for rows in learner.objective.epoch(0):
        learner.network.zero_grad(set_to_none=True)
        gradients(learner, rows, 0, 0.5)
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(pairs) == 15 and np.mean([attacked > clean for clean, attacked in pairs]) >= 0.95


def test_clean_gradients_are_joined_or_replaced(made: Any) -> None:
    clean = step_of(made())
    for name in ("awp", "fgm"):
        both, alone = step_of(made(**{name: {"clean": True}})), step_of(made(**{name: {"clean": False}}))
        assert furthest(both, {key: clean[key] + alone[key] for key in clean}) < 1e-5


@given(st.integers(0, 999), st.floats(1e-3, 5.0), st.integers(1, 4), st.integers(1, 2))
@quick
def test_fgm_moves_each_rows_words_by_its_radius_and_no_padding(
    seed: int, radius: float, rows: int, views: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    gradient, words = torch.randn(2, rows * views, 5, 3, generator=draw)
    mask = torch.ones(rows * views, 5)
    mask[:, 3:] = 0
    by = words_shift(gradient, words, mask, rows, radius)
    sizes = words[:, :3].reshape(rows, -1).norm(dim=1)
    assert torch.allclose(by.reshape(rows, -1).norm(dim=1), radius * sizes, rtol=1e-4)
    assert not by[:, 3:].any()
    assert torch.allclose(words_shift(gradient, 50 * words, mask, rows, radius), 50 * by, rtol=1e-4)
    gradient[0, 0, 0] = torch.inf
    by = words_shift(gradient, words, mask, rows, radius)
    assert torch.isfinite(by).all() and not by[:views].any() and (rows == 1 or by[views:].any())
    assert not words_shift(torch.zeros_like(by), words, mask, rows, radius).any()


def test_fgm_works_on_a_frozen_table(made: Any) -> None:
    clean, found = step_of(made(freeze_embeddings=True)), step_of(made(freeze_embeddings=True, fgm={}))
    assert furthest(clean, found) > 0 and found.keys() == clean.keys()


def test_the_table_form_is_a_share_of_the_rows_that_a_step_touches(made: Any) -> None:
    learner = made()
    weights = table(learner.network)
    step_of(learner)
    gradient = weights["words"].grad
    assert gradient is not None
    by = table_shift(weights["words"], gradient, Fgm(radius=0.7))
    touched = gradient.abs().sum(dim=1) > 0
    assert 0 < int(touched.sum()) < len(gradient) and not by[~touched].any()
    assert float(by.norm()) == pytest.approx(0.7 * float(weights["words"][touched].norm()), rel=1e-4)
    assert torch.allclose(by / by.norm(), gradient / gradient.norm(), atol=1e-6)
    assert table(made(freeze_embeddings=True).network) == {}


def test_matrices_are_attacked_and_neither_norms_nor_tables(made: Any) -> None:
    names = set(attackable(made().network))
    assert names and not any("embeddings" in name or "LayerNorm" in name or name.endswith("bias") for name in names)
    adapters = set(attackable(made("decoder").network))
    assert adapters and all("lora_" in name or name.startswith("head.") for name in adapters)


def test_an_attack_can_wait_for_its_start(made: Any) -> None:
    learner, plain = made(awp={"start": 0.6}, fgm={"start": 0.6}), made()
    assert furthest(step_of(learner), step_of(plain)) == 0.0


def test_the_realised_size_is_told(made: Any, tmp_path: Path) -> None:
    learner = made(awp={"form": "paper", "step": 1e-3, "floor": 0.0, "start": 0.5})
    record = fitted(learner, tmp_path).record
    assert len(record.attacks) == 1 and record.attacks[0] == pytest.approx(1e-3, rel=1e-3)


def test_under_fp16_no_overflow_makes_a_weight_nan(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = Device("cpu", "fp16")
    monkeypatch.setattr(
        Device, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=2)
    )
    learner = made(awp={}, fgm={}, epochs=12)
    record = fitted(learner, tmp_path, half).record
    assert 5 < record.skipped < len(record.losses) == 24
    assert 0 < len(record.attacks) < 24
    assert all(torch.isfinite(each).all() for each in learner.network.parameters())


@pytest.mark.parametrize("space", ["words", NORMALISED])
def test_words_are_caught_where_they_are_moved(space: str, made: Any) -> None:
    learner = made()
    batch = learner.objective.batch(np.arange(4), 0)
    network = learner.network.eval()
    with caught(network, space) as words:
        plain = network(*batch.inputs)
    plain.sum().backward()
    assert words[0].grad is not None and words[0].shape[:2] == batch.inputs[0].shape
    delta = 1e-2 * words[0].grad / words[0].grad.norm()
    with moved(network, delta, space):
        changed = network(*batch.inputs)
    expected = float((words[0].grad * delta).sum())
    assert float((changed - plain).sum()) == pytest.approx(expected, rel=0.1)
    assert torch.allclose(network(*batch.inputs), plain, atol=1e-4)  # the hook is gone


def test_gradient_checkpointing_sees_the_attack(made: Any) -> None:
    plain = step_of(made(awp={}, fgm={}))
    assert furthest(plain, step_of(made(awp={}, fgm={}, gradient_checkpointing=True))) < 1e-6


def test_training_settings_round_trip() -> None:
    asked = training_settings(awp={}, fgm={}, smart={"form": "sift"}, proximal={}, mixout={})
    assert asked.smart is not None and asked.smart.weight == 5.0 and asked.smart.radius is None
    assert training_settings(**asdict(asked)) == asked
