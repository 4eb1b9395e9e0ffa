from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from support import CLASSES, from_logits

from pipeline.competitions.family import Categorical
from pipeline.ensemble.linear import fit_linear, full_form, scalar_form

MIRROR = (1, 0, 2)


def drawn(weights: np.ndarray, bias: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centred logits of members, and labels drawn from the linear stacker with these weights."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, len(weights), len(bias)))
    logits -= logits.mean(axis=2, keepdims=True)
    true = from_logits(np.einsum("rmk,mkc->rc", logits, weights) + bias)
    return logits, (true.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)


def loss(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> float:
    answers = log_softmax(np.einsum("rmk,mkc->rc", logits, weights) + bias, axis=1)
    return float(-answers[np.arange(len(labels)), labels].mean())


def test_the_weights_that_drew_the_labels_are_found() -> None:
    true = np.array([0.9, 0.0, 0.5])[:, None, None] * np.eye(3)
    logits, labels = drawn(true, np.array([-0.2, -0.2, 0.4]), 20_000, 0)
    weights, bias = fit_linear(logits, labels, CLASSES, scalar_form(CLASSES, MIRROR), np.full(3, 1 / 3), 0.0)
    assert np.abs(weights - true).max() < 0.05
    assert np.abs(bias - [-0.2, -0.2, 0.4]).max() < 0.05


def test_the_unpenalised_full_form_is_multinomial_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    logits, labels = drawn(rng.normal(size=(2, 4, 4)) * 0.5, np.array([0.3, -0.1, 0.0, -0.2]), 3000, 1)
    weights, bias = fit_linear(logits, labels, Categorical(4), full_form(Categorical(4), None), np.zeros(2), 1.0e-9)
    known = LogisticRegression(C=1e9, max_iter=5000, tol=1e-8).fit(logits.reshape(3000, -1), labels)
    ours = from_logits(np.einsum("rmk,mkc->rc", logits, weights) + bias)
    assert np.abs(ours - known.predict_proba(logits.reshape(3000, -1))).max() < 1e-3


@pytest.mark.parametrize("form", [scalar_form(CLASSES, MIRROR), full_form(CLASSES, MIRROR)])
def test_no_small_step_improves_the_minimum(form) -> None:
    logits, labels = drawn(np.stack([np.eye(3)] * 2) * 0.7, np.zeros(3), 500, 2)
    centre, strength = np.array([1.0, 0.0]), 0.01
    weights, bias = fit_linear(logits, labels, CLASSES, form, centre, strength)
    goal = centre[:, None, None] * np.eye(3)

    def penalised(w: np.ndarray, b: np.ndarray) -> float:
        return loss(logits, labels, w, b) + strength / 2 * ((w - goal) ** 2).sum()

    best = penalised(weights, bias)
    rng = np.random.default_rng(0)
    for _ in range(50):
        step = np.tensordot(rng.normal(size=(2, len(form.ties))), form.ties, axes=1) * 1e-3
        if (weights + step)[form.ties.sum(axis=0)[None].repeat(2, 0) > 0].min() < form.low:
            continue
        assert penalised(weights + step, bias + rng.normal(size=len(form.bias_ties)) @ form.bias_ties * 1e-3) >= best


def test_classes_of_a_few_rows_do_not_keep_the_minimum_from_being_found() -> None:
    """Of 40 classes the largest has hundreds of rows and the smallest a handful, as in MAP."""
    outputs, shares = 40, np.linspace(4.0, -1.0, 40)
    logits, labels = drawn(np.stack([np.eye(outputs)] * 2) * 0.8, shares - shares.mean(), 1200, 6)
    logits = logits * np.geomspace(0.2, 5.0, outputs)  # members are surer of some classes than of others
    form, family, centre = full_form(Categorical(outputs), None), Categorical(outputs), np.array([1.0, 0.0])
    weights, bias = fit_linear(logits, labels, family, form, centre, 1.0e-3)

    def slopes(w: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of the penalised loss by every free number, as finite differences."""
        diagonals, each = np.array([w[m].diagonal() for m in range(2)]), []
        goal = np.repeat(centre[:, None], outputs, axis=1)

        def value(d: np.ndarray, c: np.ndarray) -> float:
            answers = log_softmax(np.einsum("rmk,mk->rk", logits, d) + c, axis=1)
            return float(-answers[np.arange(len(labels)), labels].mean()) + 0.5e-3 * ((d - goal) ** 2).sum()

        for index in range(3 * outputs):
            step = np.zeros(3 * outputs)
            step[index] = 1e-4
            d, c = step[: 2 * outputs].reshape(2, outputs), step[2 * outputs :]
            each.append((value(diagonals + d, b + c) - value(diagonals - d, b - c)) / 2e-4)
        return np.array(each)

    found = slopes(weights, bias)
    assert np.abs(found[: 2 * outputs]).max() < 1e-5
    assert np.abs(found[2 * outputs :][np.abs(bias - bias.mean()) < 9]).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), members=st.integers(1, 4), power=st.floats(-3, 1))
def test_mirrored_rows_get_mirrored_answers_and_weights_stay_in_bounds(seed: int, members: int, power: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, members, 3))
    labels = rng.integers(0, 3, 60)
    for form in (scalar_form(CLASSES, MIRROR), full_form(CLASSES, MIRROR)):
        weights, bias = fit_linear(logits, labels, CLASSES, form, np.full(members, 1 / members), 10.0**power)
        straight = from_logits(np.einsum("rmk,mkc->rc", logits, weights) + bias)
        turned = from_logits(np.einsum("rmk,mkc->rc", logits[:, :, list(MIRROR)], weights) + bias)
        assert np.abs(turned[:, list(MIRROR)] - straight).max() < 1e-12
        assert (weights.reshape(members, 9)[:, [0, 4, 8]] >= form.low).all()
        assert abs(bias.sum()) < 1e-9


def test_a_strong_penalty_leaves_the_centre() -> None:
    logits, labels = drawn(np.stack([np.eye(3)] * 2), np.zeros(3), 200, 3)
    weights, _ = fit_linear(logits, labels, CLASSES, full_form(CLASSES, MIRROR), np.array([0.7, 0.3]), 1.0e6)
    assert np.abs(weights - np.array([0.7, 0.3])[:, None, None] * np.eye(3)).max() < 1e-4


def test_mirror_images_share_their_weights() -> None:
    assert full_form(CLASSES, None).ties.shape == (9, 3, 3)
    form = full_form(CLASSES, MIRROR)
    assert form.ties.shape == (5, 3, 3)
    assert np.array_equal(form.ties.sum(axis=0), np.ones((3, 3)))  # every weight belongs to exactly one free number
    assert np.array_equal(form.bias_ties, [[1, 1, 0], [0, 0, 1]])
