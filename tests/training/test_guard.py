"""The guard's judgement, as a function of what a run's steps showed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competitions.family import Bernoulli, Categorical, Family, Gaussian, Ordinal
from pipeline.training.guard import Seen, alarm, fruitless, seen
from pipeline.training.prior import Prior

quick = settings(max_examples=60, deadline=None)
ROWS, TOTAL = 16, 200
EVEN = Prior(Categorical(3), np.arange(300) % 3)
RARE = Prior(Categorical(2), (np.arange(300) % 100 == 0).astype(np.int64))


def step(gain: float = 0.0, apart: float = 0.0, rows: int = ROWS, **changed: Any) -> Seen:
    """A step whose rows are `gain` nats better than the prior, give or take `apart`; nothing else is wrong with it."""
    sums = {"rows": rows, "gain": gain * rows, "squares": (gain**2 + apart**2) * rows}
    usual = {"spread": 0.1, "bottom": 0.2, "head": 1.0, "predicted": [6, 5, 5], "scale": 1.0, "skipped": False}
    return Seen(**sums | usual | changed)


def alarms(steps: list[Seen], total: int = TOTAL, prior: Prior = EVEN) -> dict[int, str]:
    """Steps done -> what the guard says then, for a run that it cannot stop."""
    told = {done: alarm(steps[:done], total, prior) for done in range(1, len(steps) + 1)}
    return {done: line for done, line in told.items() if line}


FAMILIES: dict[str, tuple[Family, Any]] = {
    "classes": (Categorical(4), lambda draw, rows: draw.integers(0, 4, rows)),
    "labels": (Bernoulli(3), lambda draw, rows: draw.integers(0, 2, (rows, 3)).astype(float)),
    "ordered": (Ordinal(4, 1), lambda draw, rows: draw.integers(1, 6, (rows, 1)).astype(float)),
    "numbers": (Gaussian((3.0, -1.0), (2.0, 0.5)), lambda draw, rows: draw.normal((3.0, -1.0), size=(rows, 2))),
}


@pytest.mark.parametrize("kind", FAMILIES)
@given(st.integers(1, 40), st.integers(0, 1000))
@quick
def test_what_is_seen_is_the_plain_loss_against_that_of_the_prior(kind: str, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    family, labels_of = FAMILIES[kind]
    learned, labels = labels_of(draw, 50), labels_of(draw, rows)
    if kind in ("labels", "numbers"):
        labels[0, 0] = np.nan
    logits = draw.normal(size=(rows, family.outputs)) * 5
    found = seen(logits.astype(np.float32), labels, Prior(family, learned), [1.0, 2.0], 1.0, False)
    constant = np.tile(family.prior(learned), (rows, 1))
    gains = family.losses(labels, constant) - family.losses(labels, family.means(logits))
    assert found.rows == rows and found.gain == pytest.approx(gains.sum(), rel=1e-4, abs=1e-3)
    assert found.squares == pytest.approx((gains**2).sum(), rel=1e-4, abs=1e-3)
    assert found.spread == pytest.approx(logits.std(axis=0).max(), rel=1e-4)
    counts = np.bincount(logits.argmax(axis=1), minlength=4).tolist()
    assert found.predicted == (counts if kind == "classes" else [])
    assert (found.bottom, found.head) == (1.0, 2.0)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_flat_loss_is_one_against_what_can_be_won(kind: str) -> None:
    family, labels_of = FAMILIES[kind]
    prior = Prior(family, labels_of(np.random.default_rng(0), 500))
    for share, told in ((0.005, True), (0.02, False)):
        steps = [step(0.0)] * 60 + [step(share * prior.loss, spread=0.01)] * 140
        assert bool(alarms(steps, prior=prior)) == told
        assert bool(fruitless(steps, prior, None)) == told


def test_a_gain_that_chance_may_hide_stops_no_run() -> None:
    """Of 320 rows 3 are rare: their losses differ by nats, and a window says little."""
    for apart, told in ((0.001, True), (0.5, False)):
        steps = [step(0.0)] * 60 + [step(-0.002, apart=apart, spread=0.01)] * 140
        assert bool(alarms(steps, prior=RARE)) == told
        assert bool(fruitless(steps, RARE, None)) == told


def test_one_class_for_every_row_is_no_sign_where_one_is_common() -> None:
    every = step(0.0, predicted=[16, 0])
    assert alarms([every] * TOTAL, prior=RARE) == {}
    assert fruitless([step(0.02 * RARE.loss, predicted=[16, 0])] * TOTAL, RARE, None) is None
    even = Prior(Categorical(2), np.arange(100) % 2)
    assert min(alarms([every] * TOTAL, prior=even)) == 100
    assert fruitless([step(0.02 * even.loss, predicted=[16, 0])] * TOTAL, even, None)


def test_one_class_for_every_row_is_no_sign_where_logits_cannot_tell_another_yet() -> None:
    uneven = Prior(Categorical(3), np.repeat([0, 1, 2], [50, 30, 20]))  # log(50 / 30) = 0.51
    for spread, told in ((0.4, False), (0.6, True)):
        assert bool(alarms([step(0.0, predicted=[16, 0, 0], spread=spread)] * TOTAL, prior=uneven)) == told


def test_a_slow_run_that_began_at_the_prior_is_left_alone_and_a_dead_one_is_not() -> None:
    """Both begin with logits that hardly differ."""
    assert alarms([step(0.0, spread=2e-3 * (1 + number / 500)) for number in range(TOTAL)]) == {}
    destroyed = [step(0.0, spread=1e-3)] * 5 + [step(-0.3, spread=4.0)] * 10 + [step(-0.05, spread=1e-2)] * 185
    assert min(alarms(destroyed)) <= 40


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
    assert found[first] == f"after {first} of 200 steps the loss is 0.020 worse than the prior's, and {line}"
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
    assert min(alarms(steps)) == min(alarms(scaled))


def test_too_few_rows_say_nothing() -> None:
    few = [step(0.0, spread=0.0, rows=1, predicted=[1, 0, 0])] * 200
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
    assert fruitless(learned, EVEN, None) is None
    assert fruitless([step(0.2)] * 100 + [step(0.005)] * 100, EVEN, None) == (
        "at its end the loss is 0.005 better than the prior's"
    )
    every = [step(0.02, predicted=[16, 0, 0])] * 200
    assert "at its end every row gets the same class" in str(fruitless(every, EVEN, None))


def test_the_inner_slice_has_a_word_at_the_end() -> None:
    learned = [step(0.3)] * 200
    assert fruitless(learned, EVEN, (1.0, 1.09)) is None
    assert fruitless(learned, EVEN, (1.088, 1.09)) == (
        "on the inner slice it is no better than the prior (1.088 against 1.090)"
    )
    assert fruitless([step(0.0)] * 200, EVEN, (1.0, 1.09)) is None  # the kept weights are what counts
