"""Smoothness, the momentum teacher, R-Drop and Mixout: where they are nothing, and where they are right."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import fitted, furthest, grads, step_of
from torch import Tensor, nn

from pipeline.competitions.family import Categorical
from pipeline.settings.techniques import Proximal, RDrop, Smart, with_values_of_the_form
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.gradients import Learner, _loss
from pipeline.training.techniques.mixout import Mixed, mix, unmix
from pipeline.training.techniques.perturbation import Noise, caught
from pipeline.training.techniques.proximal import Teacher, ascended, divergence, smoothness

CLASSES = Categorical(3)
quick = settings(max_examples=40, deadline=None)


def smart(**given: Any) -> Smart:
    return Smart(**with_values_of_the_form(given))


@given(st.integers(0, 999), st.integers(1, 6), st.integers(2, 5))
@quick
def test_the_divergence_is_symmetric_its_formula_and_nothing_between_equals(seed: int, rows: int, classes: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    one, other = (3 * torch.randn(rows, classes, generator=draw, dtype=torch.float64) for _ in range(2))
    p, q = one.softmax(1), other.softmax(1)
    wanted = float((p * (p / q).log()).sum() + (q * (q / p).log()).sum())
    assert float(divergence(CLASSES, one, other)) == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert float(divergence(CLASSES, one, other)) == pytest.approx(float(divergence(CLASSES, other, one)), rel=1e-5)
    assert float(divergence(CLASSES, one, one + 7)) == pytest.approx(0.0, abs=1e-5)
    both = divergence(CLASSES, torch.cat([one, one]), torch.cat([other, other]))
    assert float(both) == pytest.approx(2 * wanted, rel=1e-4, abs=1e-6)  # the loop divides by the rows


def rough(learner: Learner, asked: Smart) -> Tensor:
    """R_s of a few rows."""
    network = learner.network
    batch, noise = learner.objective.batch(np.arange(6), 0), Noise("cpu")
    with caught(network, asked.space) as words:
        logits = network(*batch.inputs)
    return smoothness(CLASSES, network, lambda: network(*batch.inputs), logits, words[0], batch.inputs[1], noise, asked)


@pytest.mark.parametrize("form", ["smart", "sift"])
def test_unmoved_words_cost_nothing_even_under_dropout(form: str, made: Any) -> None:
    learner = made(dropout=0.3)
    still = smart(form=form, noise=0.0, step=1e-30)
    found = rough(learner, still)
    assert float(found) == pytest.approx(0.0, abs=1e-8)
    found.backward()
    assert all(float(each.abs().max()) < 1e-6 for each in grads(learner.network).values())
    assert float(rough(learner, smart(form=form, noise=0.1, step=0.1, radius=0.5))) > 1e-6


@given(st.integers(0, 99), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
@quick
def test_no_component_leaves_the_box_and_no_padding_moves(seed: int, radius: float, step: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    delta, gradient = torch.randn(2, 4, 3, generator=draw) * radius, torch.randn(2, 4, 3, generator=draw)
    real = torch.ones(2, 4, 1)
    real[:, 3] = 0
    found = ascended(delta, gradient, real, smart(radius=radius, step=step))
    assert float(found.abs().max()) <= radius * (1 + 1e-6) and not found[:, 3].any()
    sift = ascended(torch.zeros(2, 4, 3), gradient, real, smart(form="sift", step=step))
    assert torch.allclose(sift[:, :3].abs().amax(dim=2), torch.full((2, 3), step), rtol=1e-4)
    broken = gradient.clone()
    broken[0, 0, 0] = torch.nan
    assert torch.isfinite(ascended(delta, broken, real, smart(radius=radius))).all()


def test_the_ascent_finds_worse_than_chance(made: Any) -> None:
    learner, worse = made(), []
    for seed in range(20):
        torch.manual_seed(seed)
        chance = rough(learner, smart(noise=1e-2, step=1e-30, radius=1e-2))
        torch.manual_seed(seed)
        worse.append(float(rough(learner, smart(noise=1e-2, step=1e-2, radius=1e-2))) >= float(chance))
    assert np.mean(worse) >= 0.95


def test_on_a_linear_network_the_ascent_goes_along_its_weights() -> None:
    """f(x) = x w, two classes: the divergence grows along the difference of the classes' weights."""
    weight, words = torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([[[0.3, 0.1]]])
    delta = torch.tensor([[[1e-3, 2e-3]]], requires_grad=True)
    logits = words[:, 0] @ weight
    (gradient,) = torch.autograd.grad(divergence(CLASSES, (words + delta)[:, 0] @ weight, logits), delta)
    direction = (weight[:, 0] - weight[:, 1]) * torch.sign(
        (delta.detach()[0, 0] @ weight)[0] - (delta.detach()[0, 0] @ weight)[1]
    )
    assert torch.allclose(gradient[0, 0] / gradient.norm(), direction / direction.norm(), atol=1e-3)


def with_teacher(learner: Learner, **given: Any) -> Learner:
    asked = Proximal(**given)
    weights = {name: each for name, each in learner.network.named_parameters() if each.requires_grad}
    return replace(learner, settings=replace(learner.settings, proximal=asked), teacher=Teacher(weights, asked, 100))


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_teacher_begins_as_the_network_in_memory_of_its_own(kind: str, made: Any) -> None:
    plain, learner = made(kind), with_teacher(made(kind))
    assert learner.teacher is not None
    for name, each in learner.teacher.mean.items():
        assert each.data_ptr() != learner.teacher.weights[name].data_ptr()
        assert torch.equal(each, learner.teacher.weights[name]) and not each.requires_grad
    assert furthest(step_of(plain), step_of(learner)) < 1e-6  # no divergence, and no gradient of it


@given(st.floats(0, 1), st.floats(0, 1))
@quick
def test_a_teacher_follows_by_its_momentum(momentum: float, early: float) -> None:
    weight = torch.ones(3)
    teacher = Teacher({"w": weight}, Proximal(momentum=momentum, early=early), 100)
    weight.fill_(2.0)
    teacher.update(0)
    assert torch.allclose(teacher.mean["w"], torch.full((3,), 2.0 - early), atol=1e-6)
    teacher.mean["w"].fill_(1.0)
    teacher.update(10)
    assert torch.allclose(teacher.mean["w"], torch.full((3,), 2.0 - momentum), atol=1e-6)


def test_the_teacher_speaks_without_dropout_and_leaves_the_mode(made: Any) -> None:
    learner = with_teacher(made(dropout=0.5))
    learner.network.backbone.eval()
    modes = [module.training for module in learner.network.modules()]
    batch = learner.objective.batch(np.arange(4), 0)
    assert learner.teacher is not None
    one, other = (learner.teacher.answer(learner.network, batch.inputs) for _ in range(2))
    assert torch.equal(one, other) and not one.requires_grad
    assert [module.training for module in learner.network.modules()] == modes


def test_a_heavy_weight_keeps_the_answers_where_they_were(made: Any, tmp_path: Path) -> None:
    moved = []
    for number, asked in enumerate((None, {"weight": 1e4, "momentum": 1.0, "early": 1.0})):
        learner = made(epochs=4, proximal=asked)
        batch = learner.objective.batch(np.arange(16), 0)
        before = learner.network(*batch.inputs).detach()
        fitted(learner, tmp_path / str(number))
        moved.append(float(divergence(CLASSES, learner.network(*batch.inputs), before).detach()))
    assert moved[1] < 0.05 * moved[0]


def test_r_drop_without_dropout_is_plain(made: Any) -> None:
    learner = made()
    asked = replace(learner, settings=replace(learner.settings, dropout=None, r_drop=RDrop(weight=3.0)))
    assert furthest(step_of(learner), step_of(asked)) < 1e-6


def test_r_drop_draws_twice_and_is_the_formula(made: Any) -> None:
    learner = made(dropout=0.3, r_drop={"weight": 2.0})
    batch = learner.objective.batch(np.arange(8), 0)
    torch.manual_seed(5)
    found = _loss(learner, batch)
    torch.manual_seed(5)
    one, other = (learner.objective.loss(learner.network, batch) for _ in range(2))
    assert one.logits is not None and other.logits is not None and not torch.equal(one.logits, other.logits)
    wanted = (one.plain + other.plain) / 2 + 2.0 / 2 * divergence(CLASSES, one.logits, other.logits)
    assert float(found.minimised) == pytest.approx(float(wanted), rel=1e-5)
    assert float(found.plain) == float(one.plain)


def test_r_drop_does_not_depend_on_the_size_of_the_batch(made: Any) -> None:
    logits = torch.randn(5, 3)
    others = torch.randn(5, 3)
    once = divergence(CLASSES, logits, others) / 5
    assert float(divergence(CLASSES, torch.cat([logits] * 3), torch.cat([others] * 3)) / 15) == pytest.approx(
        float(once), rel=1e-5
    )


@given(st.floats(0.05, 0.95), st.integers(0, 99))
@quick
def test_mixout_of_pretrained_weights_is_those_weights(rate: float, seed: int) -> None:
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    mixed = Mixed(weight, rate)
    assert torch.equal(mixed.train()(weight), weight)
    assert torch.equal(mixed.eval()(weight + 1), weight + 1)


def test_the_mean_of_many_masks_is_the_weight_and_each_weight_has_its_own() -> None:
    torch.manual_seed(0)
    pretrained, weight = torch.randn(8, 8), torch.randn(8, 8)
    mixed = Mixed(pretrained, 0.9).train()
    draws = torch.stack([mixed(weight) for _ in range(20_000)])
    error = (weight - pretrained).abs() * math.sqrt(0.9 / 0.1 / 20_000)
    assert ((draws.mean(dim=0) - weight).abs() <= 5 * error + 1e-5).all()
    one = draws[0] == pretrained
    assert 0 < one.sum() < 64 and not (one == one[:1]).all()  # no mask for whole columns


def test_the_gradient_of_mixout_is_that_of_its_forward_pass() -> None:
    pretrained = torch.randn(3, 4, dtype=torch.float64)
    mixed = Mixed(pretrained, 0.5).double().train()
    weight = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def forward(value: Tensor) -> Tensor:
        torch.manual_seed(3)
        return (mixed(value) ** 2).sum()

    assert torch.autograd.gradcheck(forward, (weight,))


def test_every_linear_layer_of_the_backbone_falls_back_to_what_was_pretrained(made: Any) -> None:
    plain, mixed = made(), made(mixout={"rate": 0.9})
    layers = {name: each for name, each in plain.network.backbone.named_modules() if isinstance(each, nn.Linear)}
    for name, layer in layers.items():
        twin: Any = mixed.network.backbone.get_submodule(name)
        assert torch.equal(twin.parametrizations.weight[0].pretrained, layer.weight)
    batch = plain.objective.batch(np.arange(4), 0)
    assert torch.equal(plain.network.eval()(*batch.inputs), mixed.network.eval()(*batch.inputs))
    with torch.no_grad():
        for each in mixed.network.parameters():
            each.add_(0.1)
    wanted = mixed.network(*batch.inputs)
    unmix(mixed.network)
    assert torch.equal(mixed.network(*batch.inputs), wanted)
    assert mixed.network.state_dict().keys() == plain.network.state_dict().keys()


def test_a_mixed_layer_trains_and_a_checkpointed_one_sees_the_same_masks() -> None:
    layer = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
    mix(layer, 0.5)
    with torch.no_grad():
        for each in layer.parameters():
            each.add_(torch.randn(each.shape))
    found = []
    for checkpointed in (False, True):
        layer.zero_grad()
        torch.manual_seed(0)
        inputs = torch.ones(2, 6)
        out = torch.utils.checkpoint.checkpoint(layer, inputs, use_reentrant=False) if checkpointed else layer(inputs)
        out.sum().backward()
        found.append(grads(layer))
    assert furthest(*found) < 1e-6


class Killed(BaseException):
    """As if the process had been killed."""


def test_everything_at_once_goes_on_after_a_kill_to_the_last_bit(
    made: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = {
        "awp": {"start": 0.3}, "fgm": {}, "smart": {"noise": 1e-2}, "proximal": {}, "r_drop": {}, "dropout": 0.1,
        "mixout": {}, "epochs": 3,
    }  # fmt: skip
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    alone, again = made(**everything), made(**everything)
    first = fitted(alone, tmp_path / "alone").record
    own, count = Checkpoint.save, iter(range(99))

    def save(self: Checkpoint, *given: Any) -> None:
        own(self, *given)
        if next(count) == 2:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(Killed):
        fitted(again, tmp_path / "again")
    fresh = made(**everything)
    second = fitted(fresh, tmp_path / "again").record
    assert first == second and len(first.losses) == 6
    weights = ({name: each.detach() for name, each in one.network.named_parameters()} for one in (alone, fresh))
    assert furthest(*weights) == 0.0
