"""Families: the loss's derivative, means and links, constant predictors, what is not known, strata."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import COMPETITIONS, labelled_rows
from sklearn.metrics import log_loss

from pipeline.competitions.family import Bernoulli, Categorical, Family, Gaussian, Ordinal, average

FAMILIES = {
    "Categorical": Categorical(4),
    "Bernoulli": Bernoulli(3),
    "Ordinal": Ordinal(4, low=1),
    "Gaussian": Gaussian((1.0, -2.0), (2.0, 0.5)),
    "Gaussian of logarithms": Gaussian((5.0, 4.0), (0.5, 0.8), log=True),
}
EVERY = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def drawn(family: Family, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Natural parameters, and labels as train.parquet has them."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(size=(rows, family.outputs))
    if isinstance(family, Categorical):
        return eta, rng.integers(family.outputs, size=rows)
    if isinstance(family, Ordinal):
        return eta, rng.integers(1, 6, size=(rows, 1)).astype(float)
    return eta, rng.integers(2, size=eta.shape).astype(float) if family.bounded else family.means(
        rng.normal(size=eta.shape)
    )


@EVERY
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_slope_is_the_derivative_of_the_loss(family: Family, seed: int) -> None:
    eta, labels = drawn(family, 3, seed)
    truth = family.statistic(labels)
    _, slope = family.loss_and_slope(eta.copy(), truth)
    for row in range(3):
        for output in range(family.outputs):
            step = np.zeros_like(eta)
            step[row, output] = 1e-6
            up, down = (family.loss_and_slope(eta + sign * step, truth)[0][row] for sign in (1, -1))
            assert slope[row, output] == pytest.approx((up - down) / 2e-6, abs=1e-6)


@EVERY
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_link_and_mean_are_inverse_and_the_losses_agree(family: Family, seed: int) -> None:
    eta, labels = drawn(family, 5, seed)
    means = family.means(eta)
    assert np.allclose(family.means(family.link(means)), means, atol=1e-9)
    found = family.losses(labels, means)
    other = family.loss_and_slope(eta.copy(), family.statistic(labels))[0]
    assert np.allclose(found - other, (found - other)[0], atol=1e-9)  # but for what no answer changes
    # A and the statistic alone give the same, but for what no answer changes; here it is taken from a second answer.
    share = 1 if isinstance(family, Categorical) else family.outputs
    zero = np.zeros_like(eta)
    above = family.potential(eta.T.copy()) - family.potential(zero.T.copy())
    of_truth = (eta * family.statistic(labels)).sum(axis=1)
    at_zero = family.loss_and_slope(zero, family.statistic(labels))[0]
    assert np.allclose((above - of_truth) / share, other - at_zero, atol=1e-9)


@EVERY
def test_no_constant_beats_the_prior(family: Family) -> None:
    _, labels = drawn(family, 400, 1)
    prior = family.prior(labels)
    best = family.losses(labels, np.tile(prior, (400, 1))).mean()
    for seed in range(20):
        moved = family.means(
            family.link(prior[None]) + 0.1 * np.random.default_rng(seed).normal(size=(1, family.outputs))
        )
        assert family.losses(labels, np.tile(moved, (400, 1))).mean() > best


@EVERY
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_divergences_are_what_the_worse_answer_loses(family: Family, seed: int) -> None:
    better, worse = (family.means(drawn(family, 4, seed + i)[0]) for i in (0, 1))
    assert (family.divergence(better, worse) > 0).all()
    assert np.allclose(family.divergence(better, better), 0.0, atol=1e-12)
    if isinstance(family, Categorical):
        expected = sum(
            better[:, c] * (family.losses(np.full(4, c), worse) - family.losses(np.full(4, c), better))
            for c in range(4)
        )
        assert np.allclose(family.divergence(better, worse), expected, atol=1e-9)
        assert np.allclose(family.uncertainty(better), -(better * np.log(better)).sum(axis=1))


def test_the_bernoulli_loss_is_the_librarys() -> None:
    eta, labels = drawn(Bernoulli(1), 200, 3)
    means = Bernoulli(1).means(eta)
    assert Bernoulli(1).losses(labels, means).mean() == pytest.approx(log_loss(labels[:, 0], means[:, 0]))


@pytest.mark.parametrize("family", [Bernoulli(2), Gaussian((0.0, 5.0), (1.0, 2.0))], ids=["labels", "numbers"])
def test_what_is_not_known_has_no_loss_and_no_slope(family: Family) -> None:
    eta, labels = drawn(family, 6, 4)
    labels[::2, 1] = np.nan
    losses, slope = family.loss_and_slope(eta.copy(), family.statistic(labels))
    assert np.isfinite(losses).all() and (slope[::2, 1] == 0).all()
    means = family.means(eta)
    moved = means.copy()
    moved[::2, 1] += 0.01
    assert np.array_equal(family.losses(labels, means), family.losses(labels, moved))
    assert np.isfinite(family.prior(labels)).all()
    means[0, 0] = np.nan
    assert np.isnan(family.losses(labels, means)[0]) and np.isfinite(family.losses(labels, means)[1:]).all()


def test_the_expected_score_lies_among_the_scores() -> None:
    family = Ordinal(4, low=1)
    labels = np.array([[1.0], [3.0], [5.0]])
    assert np.array_equal(family.expected(family.statistic(labels)), labels)
    assert family.strata(labels).tolist() == [0, 2, 4]
    assert family.expected(np.full((1, 4), 0.5))[0, 0] == 3.0


def test_options_have_equal_priors_whatever_the_labels() -> None:
    assert Categorical(4, exchangeable=True).prior(np.zeros(9, dtype=int)).tolist() == [0.25] * 4


@EVERY
def test_the_average_is_that_of_the_natural_parameters(family: Family) -> None:
    one, other = (family.means(drawn(family, 4, seed)[0]) for seed in (0, 1))
    assert np.allclose(average(family, [one, one]), one, atol=1e-9)
    assert np.allclose(average(family, [one, other]), family.means((family.link(one) + family.link(other)) / 2))


@pytest.mark.parametrize("name", list(COMPETITIONS))
def test_strata_are_few_and_begin_at_zero(name: str) -> None:
    competition = COMPETITIONS[name]
    rows, _ = labelled_rows(competition, 200, 0)
    strata = competition.family.strata(rows["label"].to_numpy())
    assert strata.min() >= 0 and 2 <= len(np.unique(strata)) <= 12
