"""The loss, its smoothing, the divergence of two answers and the vote of several, against the family in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.competitions.family import Bernoulli, Categorical, Family, Gaussian, Ordinal
from pipeline.data.text import Encoded
from pipeline.models.voting import Committee
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.techniques.proximal import divergence

FAMILIES: dict[str, Family] = {
    "classes": Categorical(4),
    "labels": Bernoulli(3),
    "ordered": Ordinal(4, 1),
    "numbers": Gaussian((3.0, -1.0), (2.0, 0.5)),
}
quick = settings(max_examples=30, deadline=None)


class Fixed(nn.Module):
    """The same logits for the rows, whatever they say."""

    def __init__(self, logits: np.ndarray) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.from_numpy(logits))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.logits


def drawn(family: Family, seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels of which some are not known."""
    draw = np.random.default_rng(seed)
    logits = 3 * draw.normal(size=(rows, family.outputs))
    if isinstance(family, Categorical):
        return logits, draw.integers(0, family.outputs, rows)
    if isinstance(family, Ordinal):
        return logits, draw.integers(1, 6, (rows, 1)).astype(np.float64)
    values: Any = draw.random((rows, 3)) if isinstance(family, Bernoulli) else draw.normal(size=(rows, 2))
    return logits, np.where(draw.random(values.shape) < 0.2, np.nan, values)


def objective(family: Family, labels: np.ndarray, smoothing: float = 0.0) -> Supervised:
    ids = [np.array([1, 2], dtype=np.int32)] * len(labels)
    encoded = Encoded(ids, 1, {}, np.zeros(len(labels), dtype=bool))
    return Supervised(encoded, labels, family, 0, "cpu", len(labels), 1000, smoothing, 0)


@pytest.mark.parametrize("kind", FAMILIES)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), smoothing=st.floats(0.0, 0.9))
@quick
def test_the_loss_is_the_familys(kind: str, seed: int, rows: int, smoothing: float) -> None:
    family = FAMILIES[kind]
    logits, labels = drawn(family, seed, rows)
    learned, network = objective(family, labels, smoothing), Fixed(logits)
    found = learned.loss(network, learned.batch(np.arange(rows), 0))
    losses, slope = family.loss_and_slope(logits.copy(), family.statistic(labels))
    assert float(found.plain) == pytest.approx(losses.sum(), rel=1e-4, abs=1e-4)
    assert learned.score(network) == pytest.approx(float(found.plain) / rows, rel=1e-6)
    target = family.statistic(labels)
    if not isinstance(family, Gaussian):
        even = 1 / family.outputs if isinstance(family, Categorical) else 0.5
        target = (1 - smoothing) * target + smoothing * even
    found.minimised.backward()
    _, slope = family.loss_and_slope(logits.copy(), target)
    assert network.logits.grad is not None
    np.testing.assert_allclose(network.logits.grad.numpy(), slope, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
@given(seed=st.integers(0, 10**6))
@quick
def test_the_divergence_is_that_of_both_ways_together(kind: str, seed: int) -> None:
    family = FAMILIES[kind]
    one, other = drawn(family, seed, 5)[0] / 3, drawn(family, seed + 1, 5)[0] / 3
    means = family.means(one), family.means(other)
    wanted = (family.divergence(*means) + family.divergence(*means[::-1])).sum()
    assert float(divergence(family, torch.from_numpy(one), torch.from_numpy(other))) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
@given(seed=st.integers(0, 10**6), voters=st.integers(1, 4))
@quick
def test_a_committee_answers_with_the_mean_answer(kind: str, seed: int, voters: int) -> None:
    family = FAMILIES[kind]
    answers = [drawn(family, seed + number, 5)[0] for number in range(voters + 1)]
    committee = Committee(Fixed(answers[0]), [{"logits": torch.from_numpy(each)} for each in answers[1:]], family)
    found = committee(torch.zeros(5, 2), torch.ones(5, 2)).detach().double().numpy()
    np.testing.assert_allclose(
        family.means(found), np.mean([family.means(each) for each in answers], axis=0), atol=1e-5
    )
