from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CLASSES, from_logits, geometric_mean, to_logits

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import (
    LARGEST_BIAS,
    TEMPERATURES,
    UNCALIBRATED,
    Calibration,
    best_temperature,
    fit_calibration,
    fit_shift,
)
from pipeline.section import from_json

LOG_LOSS = METRICS["log_loss"]


def drawn(rows: int, seed: int, sure: float = 1.0, tie: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from true probabilities; those probabilities too sure by `sure` and too fond of ties by `tie`."""
    rng = np.random.default_rng(seed)
    true = from_logits(rng.normal(size=(rows, 3)) * 1.5)
    labels = (true.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
    return labels, from_logits(to_logits(true) * sure + [0.0, 0.0, tie])


def fitted(labels: np.ndarray, probabilities: np.ndarray, competition: Competition) -> Calibration:
    rows = np.arange(len(labels))
    return fit_calibration(labels, probabilities, rows % 4, rows, competition)


def test_temperature_and_bias_of_a_wrong_model_are_found(lmsys: Competition) -> None:
    labels, probabilities = drawn(8000, 0, sure=1.6, tie=0.5)
    found = fitted(labels, probabilities, lmsys)
    assert found.temperature == pytest.approx(1.6, abs=0.1)
    assert found.bias is not None
    assert found.bias[0] == found.bias[1]  # the two sides are alike, by construction
    assert found.bias[2] - found.bias[0] == pytest.approx(-0.5 / 1.6, abs=0.06)
    assert LOG_LOSS.score(labels, found.apply(probabilities, CLASSES)) < LOG_LOSS.score(labels, probabilities) - 0.02


@pytest.mark.parametrize("seed", range(5))
def test_a_calibrated_model_is_left_as_it_is(seed: int, lmsys: Competition) -> None:
    labels, probabilities = drawn(2000, seed)
    found = fitted(labels, probabilities, lmsys)
    assert LOG_LOSS.score(labels, found.apply(probabilities, CLASSES)) < LOG_LOSS.score(labels, probabilities) + 1e-9
    assert found.temperature == pytest.approx(1.0, abs=0.1)
    assert UNCALIBRATED.apply(probabilities, CLASSES) is probabilities


@settings(max_examples=20, deadline=None)
@given(sure=st.floats(-5.0, 20.0), tie=st.floats(-20, 20), seed=st.integers(0, 50))
def test_calibration_is_bounded_and_never_turns_a_model_round(sure: float, tie: float, seed: int) -> None:
    from pipeline.competitions.registry import load_competition

    labels, probabilities = drawn(100, seed, sure, tie)
    found = fitted(labels, probabilities, load_competition("lmsys"))
    assert TEMPERATURES[0] * 0.999 <= found.temperature <= TEMPERATURES[1] * 1.001
    assert np.abs(found.bias or (0.0,)).max() <= 2 * LARGEST_BIAS
    softened = replace(found, bias=None).apply(probabilities, CLASSES)
    assert np.allclose(softened.sum(axis=1), 1)
    likeliest = softened[np.arange(100), probabilities.argmax(axis=1)]
    assert (likeliest >= softened.max(axis=1) - 1e-12).all()  # where two classes are equal, the last bits decide


def test_mirrored_answers_stay_mirrored(lmsys: Competition) -> None:
    labels, probabilities = drawn(1000, 3, sure=2.0, tie=0.7)
    found = replace(fitted(labels, probabilities, lmsys), shift=0.9)
    assert (
        np.abs(
            lmsys.mirrored(found.apply(lmsys.mirrored(probabilities), CLASSES)) - found.apply(probabilities, CLASSES)
        ).max()
        < 1e-12
    )
    assert from_json(Calibration, json.loads(json.dumps(asdict(found)))) == found


def test_averaging_fold_models_asks_for_a_surer_answer_which_the_pairing_finds() -> None:
    """Each fold model adds noise of its own to the truth; the stacker has learned what one of them needs."""
    shifts, plain = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        true = rng.normal(size=(800, 3)) * 1.2
        labels = (from_logits(true).cumsum(axis=1) < rng.random((800, 1))).sum(axis=1)
        single = [from_logits(true + 0.8 * rng.normal(size=true.shape)) for _ in range(5)]
        average = geometric_mean(single)
        shifts.append(fit_shift(labels, single, average, CLASSES))
        plain.append(best_temperature(labels, average, CLASSES))
        assert fit_shift(labels, [average] * 5, average, CLASSES) == pytest.approx(1.0, abs=1e-4)
    assert max(shifts) < 0.95
    assert np.std(np.log(shifts)) < 0.5 * np.std(np.log(plain))


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
