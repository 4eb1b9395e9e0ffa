"""What a student has still to learn of its teachers: nothing where both say the same, else a divergence of its kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from outcomes import COMPETITIONS

from pipeline.competitions.family import Gaussian
from pipeline.settings.teachers import Teachers
from pipeline.training.objectives.distillation import Lesson, distance, taught

FAMILIES = {name: each.family for name, each in COMPETITIONS.items()}


def drawn(name: str, rows: int = 7, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, FAMILIES[name].outputs))).float()


def said(name: str, eta: torch.Tensor, temperature: float) -> torch.Tensor:
    """What a teacher with these logits says at a temperature."""
    family = FAMILIES[name]
    if isinstance(family, Gaussian):
        return eta
    return torch.from_numpy(family.means(eta.double().numpy() / temperature)).float()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_it_is_0_where_both_say_the_same_and_more_elsewhere(name: str, temperature: float) -> None:
    family, teacher, student = FAMILIES[name], drawn(name), drawn(name, seed=1)
    assert float(distance(family, teacher, said(name, teacher, temperature), temperature).abs().max()) < 1e-4
    assert float(distance(family, student, said(name, teacher, temperature), temperature).min()) > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_at_temperature_1_it_is_the_familys_own_divergence(name: str) -> None:
    family, teacher, student = FAMILIES[name], drawn(name), drawn(name, seed=1)
    expected = family.divergence(family.means(teacher.double().numpy()), family.means(student.double().numpy()))
    found = distance(family, student, said(name, teacher, 1.0), 1.0).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_hot_enough_its_slope_is_that_of_the_squared_difference_of_centred_logits() -> None:
    """Hinton et al. 2015, section 2.1: for logits of mean 0, (student - teacher) / classes."""
    family = FAMILIES["classes"]
    teacher, student = (each - each.mean(dim=1, keepdim=True) for each in (drawn("classes"), drawn("classes", seed=1)))
    student.requires_grad_(True)
    hot = 200.0
    distance(family, student, said("classes", teacher, hot), hot).sum().backward()
    expected = (student.detach() - teacher) / family.outputs
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected, atol=0.02, rtol=0.02)


def test_several_teachers_teach_what_their_mean_does() -> None:
    family, student = FAMILIES["classes"], drawn("classes", seed=2).requires_grad_(True)
    each = [said("classes", drawn("classes", seed=seed), 2.0) for seed in (0, 1)]
    slopes = []
    for loss in (
        sum(distance(family, student, answers, 2.0) for answers in each) / 2,
        distance(family, student, (each[0] + each[1]) / 2, 2.0),
    ):
        slopes.append(torch.autograd.grad(loss.sum(), student)[0])
    torch.testing.assert_close(*slopes)


def test_the_cosine_sees_directions_and_no_lengths() -> None:
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(states, dim=1).view(3, 2, 4)
    answers = said("classes", drawn("classes", 3), 1.0)
    settings = Teachers(members=("a",), weight=0.0, cosine=2.0)
    logits, lesson = drawn("classes", 3, seed=1), Lesson(answers, unit)
    family = FAMILIES["classes"]
    torch.testing.assert_close(taught(family, logits, [5.0 * states], lesson, settings), torch.zeros(3))
    torch.testing.assert_close(taught(family, logits, [-states], lesson, settings), torch.full((3,), 2.0 * 2.0))
