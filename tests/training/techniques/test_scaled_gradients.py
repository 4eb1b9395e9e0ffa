"""Dynamic scaled gradient descent: what is right moves the network by its share, what is wrong as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import fitted, furthest, grads
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pipeline.competitions.family import Bernoulli, Categorical, Ordinal
from pipeline.settings.techniques import Dsgd
from pipeline.training.gradients import Learner, gradients
from pipeline.training.techniques.scaled_gradients import right, scale_right_rows, scaler_at

quick = settings(max_examples=40, deadline=None)


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
@quick
def test_the_scaler_rises_from_its_least_to_one(strength: float, until: float, one: float, other: float) -> None:
    asked = Dsgd(strength=strength, until=until)
    early, late = (scaler_at(progress, asked) for progress in sorted((one, other)))
    assert 1 - strength - 1e-12 <= early <= late + 1e-12 and late <= 1
    assert scaler_at(0.0, asked) == 1 - strength and scaler_at(until, asked) == scaler_at(1.0, asked) == 1


@given(st.integers(0, 999), st.integers(1, 8), st.integers(2, 5), st.floats(0, 1))
@quick
def test_a_right_class_gets_the_scalers_share_and_a_wrong_one_its_own(
    seed: int, rows: int, classes: int, scaler: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=draw, requires_grad=True)
    targets = torch.randint(classes, (rows,), generator=draw)
    (plain,) = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum"), logits)
    scale_right_rows(Categorical(classes), logits, targets, scaler)
    loss = cross_entropy(logits, targets, reduction="sum")
    loss.backward()
    hit = logits.argmax(dim=1) == targets
    assert logits.grad is not None
    assert torch.equal(logits.grad[~hit], plain[~hit])
    assert torch.allclose(logits.grad[hit], scaler * plain[hit], rtol=1e-6)


@pytest.mark.parametrize("family", [Bernoulli(3), Ordinal(3, low=1)])
def test_each_yes_or_no_is_right_by_itself_and_the_unknown_never(family: Bernoulli) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, -0.1]], requires_grad=True)
    targets = torch.tensor([[1.0, 1.0, torch.nan], [0.0, 1.0, torch.nan]])
    found = right(family, logits, targets)
    assert found.tolist() == [[True, False, False], [True, True, False]]
    known = torch.nan_to_num(targets)
    (plain,) = torch.autograd.grad(binary_cross_entropy_with_logits(logits, known, reduction="sum"), logits)
    scale_right_rows(family, logits, targets, 0.25)
    binary_cross_entropy_with_logits(logits, known, reduction="sum").backward()
    assert torch.allclose(logits.grad, torch.where(found, 0.25, 1.0) * plain)  # type: ignore[arg-type]


def test_a_soft_label_is_its_likeliest_class() -> None:
    logits, targets = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 4
    soft = 0.6 * torch.nn.functional.one_hot(targets, 4) + 0.1
    assert torch.equal(right(Categorical(4), logits, soft), right(Categorical(4), logits, targets))


def step_at(learner: Learner, rows: list[np.ndarray], progress: float) -> dict[str, Tensor]:
    learner.network.zero_grad(set_to_none=True)
    gradients(learner, rows, 0, progress)
    return grads(learner.network)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_step_is_the_sum_of_its_wrong_rows_and_the_share_of_its_right_ones(kind: str, made: Any) -> None:
    plain, scaled = made(kind), made(kind, dsgd={"strength": 0.8})
    rows = np.arange(12)
    batch = plain.objective.batch(rows, 0)
    hit = right(Categorical(3), plain.network(*batch.inputs), batch.targets)[:, 0].numpy()
    assert 0 < hit.sum() < 12
    mine = {name: each * hit.sum() for name, each in step_at(plain, [rows[hit]], 0.0).items()}
    others = {name: each * (~hit).sum() for name, each in step_at(plain, [rows[~hit]], 0.0).items()}
    for progress, scaler in ((0.0, 0.2), (0.5, 0.6), (1.0, 1.0)):
        found = step_at(scaled, [rows], progress)
        wanted = {name: (scaler * each + others[name]) / 12 for name, each in mine.items()}
        assert furthest(found, wanted) < 1e-6
        assert furthest(found, step_at(scaled, [rows[:5], rows[5:]], progress)) < 1e-6  # however it is packed


def test_losses_and_logits_are_told_as_they_are(made: Any) -> None:
    plain, scaled = made(), made(dsgd={"strength": 1.0})
    shown, its = (gradients(each, [np.arange(8)], 0, 0.0) for each in (plain, scaled))
    assert torch.equal(shown.losses, its.losses)
    assert shown.logits is not None and its.logits is not None and torch.equal(shown.logits, its.logits)


@pytest.mark.parametrize(
    "beside", [{}, {"fgm": {}}, {"r_drop": {}, "dropout": 0.1}, {"deni": {"children": 2}}, {"head_first": {}}]
)  # fmt: skip
def test_without_strength_every_bit_is_as_before(beside: dict[str, Any], made: Any, tmp_path: Path) -> None:
    found = []
    for number, asked in enumerate(({}, {"dsgd": {"strength": 0.0}}, {"dsgd": {"strength": 0.9}})):
        learner = made(epochs=2, **beside, **asked)
        record = fitted(learner, tmp_path / str(number)).record
        found.append((record, {name: each.detach() for name, each in learner.network.named_parameters()}))
    (record, weights), (same, its), (other, scaled) = found
    assert record == same and furthest(weights, its) == 0.0
    assert record.losses[0] == other.losses[0] and furthest(weights, scaled) > 0


def test_both_draws_of_r_drop_are_scaled(made: Any) -> None:
    """Where all is right and nothing of it kept, neither draw's loss leaves a gradient."""
    learner = made(dsgd={"strength": 1.0}, r_drop={"weight": 1e-9}, dropout=0.1)
    learned = learner.objective
    sure = replace(learner, objective=replace(learned, labels=np.zeros_like(learned.labels)))
    with torch.no_grad():  # so sure of the first class that no dropout turns an answer
        for each in sure.network.head.parameters():
            if each.shape == (3,):
                each += torch.tensor([9.0, 0.0, 0.0])
    assert all(float(each.abs().max()) < 1e-9 for each in step_at(sure, [np.arange(8)], 0.0).values())
    assert any(float(each.abs().max()) > 1e-6 for each in step_at(sure, [np.arange(8)], 1.0).values())
