from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competitions.metrics import METRICS
from pipeline.ensemble.calibration import BOUNDS, cross_fitted, fit_temperature
from pipeline.ensemble.logits import from_logits, geometric_mean, tempered, to_logits

LOG_LOSS = METRICS["log_loss"]


def drawn(temperature: float, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the true probabilities, and those probabilities too sure by `temperature`."""
    rng = np.random.default_rng(seed)
    true = from_logits(rng.normal(size=(rows, 3)) * 1.5)
    labels = np.array([rng.choice(3, p=each) for each in true])
    return labels, tempered(true, 1 / temperature)


def test_the_temperature_of_a_too_sure_model_is_found() -> None:
    labels, sure = drawn(1.6, 4000, 0)
    assert abs(fit_temperature(labels, sure) - 1.6) < 0.15
    labels, shy = drawn(0.7, 4000, 1)
    assert abs(fit_temperature(labels, shy) - 0.7) < 0.08


def test_a_calibrated_model_is_left_alone() -> None:
    assert fit_temperature(*drawn(1.0, 4000, 3)) == 1.0


@settings(max_examples=15, deadline=None)
@given(temperature=st.floats(0.1, 20.0), seed=st.integers(0, 50))
def test_the_temperature_is_bounded_and_never_turns_a_model_round(temperature: float, seed: int) -> None:
    labels, probabilities = drawn(temperature, 100, seed)
    found = fit_temperature(labels, probabilities)
    assert BOUNDS[0] * 0.999 <= found <= BOUNDS[1] * 1.001
    assert np.array_equal(tempered(probabilities, found).argmax(1), probabilities.argmax(1))


def test_each_half_is_scored_under_the_temperature_of_the_other() -> None:
    labels, sure = drawn(1.6, 600, 0)
    halves = np.arange(600) % 2
    crossed = cross_fitted(labels, sure, halves)
    first = halves == 0
    assert np.allclose(crossed[first], tempered(sure[first], fit_temperature(labels[~first], sure[~first])))
    turned = np.where(first, (labels + 1) % 3, labels)
    assert np.array_equal(cross_fitted(turned, sure, halves)[first], crossed[first])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), models=st.integers(1, 5))
def test_the_average_of_fold_models_is_a_distribution_between_them(seed: int, models: int) -> None:
    rng = np.random.default_rng(seed)
    # Within the clip of to_logits (1e-6), below which probabilities are deliberately taken as equal.
    parts = [from_logits(rng.uniform(-5, 5, size=(7, 3))) for _ in range(models)]
    mean = geometric_mean(parts)
    assert np.allclose(mean.sum(axis=1), 1)
    assert np.allclose(geometric_mean([parts[0]] * models), parts[0], atol=1e-9)
    assert np.allclose(mean, geometric_mean(parts[::-1]))
    assert np.allclose(from_logits(to_logits(mean)), mean)


def test_rows_without_an_answer_stay_without() -> None:
    assert np.isnan(to_logits(np.full((2, 3), np.nan))).all()
