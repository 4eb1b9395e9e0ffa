"""The guard's judgement, as a function of what a run's steps showed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.guard import FLAT, Seen, alarm, fruitless, seen

quick = settings(max_examples=60, deadline=None)
ROWS, TOTAL = 16, 200
ENTROPY = math.log(3)


def step(gain: float = 0.0, **changed: Any) -> Seen:
    """A step whose rows are `gain` nats better than the prior, each; nothing else is wrong with it."""
    usual = {"spread": 0.1, "bottom": 0.2, "head": 1.0, "predicted": [6, 5, 5], "scale": 1.0, "skipped": False}
    return Seen(**{"gain": gain * ROWS} | usual | changed)


def alarms(steps: list[Seen], total: int = TOTAL) -> dict[int, str]:
    """Steps done -> what the guard says then, for a run that it cannot stop."""
    told = {done: alarm(steps[:done], total) for done in range(1, len(steps) + 1)}
    return {done: line for done, line in told.items() if line}


@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 1000))
@quick
def test_what_is_seen_is_the_plain_cross_entropy_against_that_of_the_prior(rows: int, classes: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    logits, labels = draw.normal(size=(rows, classes)) * 5, draw.integers(0, classes, rows)
    prior = draw.dirichlet(np.ones(classes)) * 0.9 + 0.1 / classes
    found = seen(logits.astype(np.float32), labels, prior, [1.0, 2.0], 1.0, False)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = sum(math.log(probabilities[row, label] / prior[label]) for row, label in enumerate(labels))
    assert found.gain == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert found.spread == pytest.approx(logits.std(axis=0).max(), rel=1e-4)
    assert found.predicted == np.bincount(logits.argmax(axis=1), minlength=classes).tolist()
    assert (found.bottom, found.head) == (1.0, 2.0)


def test_a_slow_run_is_left_alone_however_long_its_loss_is_flat() -> None:
    assert alarms([step(0.0)] * TOTAL) == {}


def test_one_sign_without_a_flat_loss_is_none() -> None:
    low = [step(0.05)] * 20 + [step(0.05, spread=0.0, bottom=0.0, predicted=[16, 0, 0])] * 180
    assert alarms(low) == {}


@pytest.mark.parametrize(
    ("lost", "line"),
    [
        ({"spread": 0.01}, "the logits no longer differ from row to row"),
        ({"bottom": 0.01}, "the gradients no longer reach the lowest layer"),
    ],
)
def test_a_flat_loss_with_something_vanished_stops_a_run(lost: dict[str, float], line: str) -> None:
    found = alarms([step(0.0)] * 60 + [step(-0.02, **lost)] * 140)
    first = min(found)
    assert 60 < first <= 80  # within a window
    assert (
        found[first] == f"after {first} of 200 steps the loss is 0.020 worse than the classes' shares alone, and {line}"
    )
    assert all(done % 10 == 0 for done in found)


def test_what_was_lost_in_the_first_steps_counts_too() -> None:
    assert min(alarms([step(0.0)] * 4 + [step(0.0, spread=0.004)] * 196)) == 30


def test_logits_that_never_differed_are_no_slow_start() -> None:
    assert "no longer differ" in alarms([step(0.0, spread=1e-5)] * TOTAL)[30]


def test_nothing_is_said_before_its_time_or_at_the_end() -> None:
    found = alarms([step(0.0)] * 3 + [step(-1.0, spread=0.0)] * 197)
    assert min(found) == 30 and max(found) == 190  # `fruitless` speaks at the end


def test_one_class_for_every_row_is_a_sign_late_alone() -> None:
    assert min(alarms([step(0.0, predicted=[16, 0, 0])] * TOTAL)) == 100
    assert alarms([step(0.0, predicted=[15, 1, 0])] * TOTAL) == {}


@given(st.floats(0.1, 1e4), st.floats(1e-6, 1e6), st.integers(0, 60))
@quick
def test_the_size_of_logits_and_gradients_sets_no_threshold(logits: float, gradients: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    steps = [
        step(-0.02, spread=0.5 * 0.97**k * draw.uniform(0.5, 1.5), bottom=0.9**k * draw.uniform(0.5, 1.5))
        for k in range(TOTAL)
    ]
    scaled = [each._replace(spread=each.spread * logits, bottom=each.bottom * gradients) for each in steps]
    one, other = (next(done for done in range(1, TOTAL + 1) if alarm(each[:done], TOTAL)) for each in (steps, scaled))
    assert one == other


def test_too_few_rows_say_nothing() -> None:
    few = [step(0.0, spread=0.0, predicted=[1, 0, 0])] * 200
    assert min(alarms(few)) == 70  # the first look that sees 64 rows


def test_overflows_in_a_row_stop_a_run_at_once() -> None:
    lost = step(0.3, skipped=True)
    found = alarms([step(0.3)] * 3 + [lost] * 5 + [step(0.3)] + [lost] * 6)
    assert found == {15: "6 steps in a row were lost to fp16 overflows"}


def test_a_loss_scale_below_one_stops_a_run() -> None:
    assert alarms([step(0.3, scale=2.0), step(0.3, scale=0.5)]) == {
        2: "fp16 overflows brought the loss scale down to 0.5"
    }


def test_what_a_run_has_learned_is_judged_at_its_end() -> None:
    learned = [step(0.0)] * 150 + [step(0.2)] * 50
    assert fruitless(learned, ENTROPY, None) is None
    assert fruitless([step(0.2)] * 100 + [step(FLAT / 2)] * 100, ENTROPY, None) == (
        "at its end the loss is 0.005 better than the classes' shares alone"
    )
    every = [step(0.02, predicted=[16, 0, 0])] * 200
    assert "at its end every row gets the same class" in str(fruitless(every, ENTROPY, None))
    assert fruitless(every, 0.3, None) is None  # a rare class may never be the likeliest


def test_the_inner_slice_has_a_word_at_the_end() -> None:
    learned = [step(0.3)] * 200
    assert fruitless(learned, ENTROPY, (1.0, 1.09)) is None
    assert fruitless(learned, ENTROPY, (1.088, 1.09)) == (
        "on the inner slice it is no better than the classes' shares (1.088 against 1.090)"
    )
