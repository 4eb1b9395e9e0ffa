"""The schedule in simulated time: nothing ends after the stop, nothing runs twice, accidents cost what they must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from support import CLASSES

from pipeline.ensemble.ladder import Rung
from pipeline.planning.cost import Costs
from pipeline.planning.gain import ExpectedGain
from pipeline.planning.schedule import IN_A_ROW, Schedule, StepChunk
from pipeline.planning.simulate import Outcome, simulate
from pipeline.planning.steps import Load, Step

ROWS = 300
TRUE = {"words": (0.5, 2.0e-4), "net": (3.0, 2.0e-3), "big": (10.0, 1.0e-2)}
"""Seconds of loading, and per token."""
MEMBERS = {
    name: {"kind": "tabular" if name == "words" else "encoder", "folds": [0, 1], "passes": ["first"]} for name in TRUE
}
RUNGS = (
    Rung("prior", (), None, loss=1.1),
    Rung("words", ("words",), None, loss=1.0, averaging=0.01),
    Rung("words+net", ("words", "net"), None, loss=0.95, averaging=0.01),
    Rung("words+net+big", ("words", "net", "big"), None, loss=0.9, averaging=0.01),
)
STEPS = [Step(name, fold) for name in TRUE for fold in (0, 1)]


def schedule(stop: float, devices: int = 1, factor: float = 1.0, everything: bool = False) -> Schedule:
    """A schedule whose promises are `factor` times what is true."""
    lengths = np.random.default_rng(0).integers(20, 1000, size=ROWS).astype(float)
    load = Load(lengths, np.zeros(ROWS), np.ones(ROWS, dtype=bool))
    timings = {
        name: {"cpu": {"load": factor * first, "a": 0.01, "b": factor * each, "c": 0.0}}
        for name, (first, each) in TRUE.items()
    }
    costs = Costs(MEMBERS, {f"cpu:{number}": "cpu" for number in range(devices)}, timings)
    expected = ExpectedGain(RUNGS, {name: 2 for name in TRUE}, {}, CLASSES)
    flat = np.full((ROWS, 3), 1 / 3)
    return Schedule(dict.fromkeys(STEPS, load), costs, expected, stop, lengths, flat, everything=everything)


def takes(speed: float = 1.0, jitter: float = 0.0, seed: int = 0) -> Callable[[str, StepChunk], Outcome]:
    rng = np.random.default_rng(seed)

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        loading, each = TRUE[chunk.step.member]
        return Outcome(loading / speed, (0.01 + each * chunk.tokens) / speed * float(np.exp(rng.normal(0, jitter))))

    return outcome


def whole() -> float:
    """Seconds of everything on one device."""
    tokens = schedule(1.0).characters.sum()
    return sum(2 * (first + each * tokens) for first, each in TRUE.values())


@pytest.mark.parametrize(
    ("share", "speed", "jitter", "devices"),
    [
        (0.02, 1.0, 0.0, 1),  # time for hardly anything
        (0.02, 0.2, 0.4, 3),
        (0.3, 0.2, 0.0, 1),  # five times slower than promised, always
        (0.3, 0.6, 0.4, 2),
        (0.6, 1.0, 0.2, 3),
        (0.6, 1.5, 0.4, 1),  # faster, but nobody can tell how much
        (1.0, 1.0, 0.0, 1),  # time for everything, to the second
        (1.0, 0.6, 0.2, 2),
        (1.5, 0.2, 0.2, 3),
        (1.5, 1.5, 0.4, 2),  # time to spare
    ],
)
def test_nothing_ends_after_the_stop_and_no_row_runs_twice(
    share: float, speed: float, jitter: float, devices: int
) -> None:
    """With a `share` of the time that everything takes, on devices that are `speed` times as fast as promised."""
    stop = share * whole() / devices
    plan = schedule(stop, devices)
    seen: Counter[tuple[Step, int]] = Counter()

    def finished(chunk: StepChunk) -> None:
        seen.update((chunk.step, int(row)) for row in chunk.rows)

    outcome = takes(speed, jitter, devices)
    end = simulate(plan, [f"cpu:{number}" for number in range(devices)], 0.0, outcome, finished)
    assert end <= stop
    assert all(count == 1 for count in seen.values())
    assert sum(plan.done[step].sum() for step in STEPS) == sum(seen.values())


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_with_time_to_spare_everything_is_done(devices: int) -> None:
    plan = schedule(10 * whole(), devices)
    end = simulate(plan, [f"cpu:{number}" for number in range(devices)], 0.0, takes())
    assert all(plan.complete(step) for step in STEPS)
    # Several devices share the work: what they load more than once stays small.
    assert end <= 1.35 * whole() / devices + 20


def test_a_slower_device_takes_less() -> None:
    plan = schedule(10 * whole(), 2)
    rows: Counter[str] = Counter()

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        rows[device] += len(chunk.rows)
        return takes(1.0 if device == "cpu:0" else 0.25)(device, chunk)

    simulate(plan, ["cpu:0", "cpu:1"], 0.0, outcome)
    assert 2.0 < rows["cpu:0"] / rows["cpu:1"] < 8.0


def test_the_first_chunk_of_a_member_is_its_longest_rows() -> None:
    plan = schedule(10 * whole())
    first: dict[str, np.ndarray] = {}

    def finished(chunk: StepChunk) -> None:
        first.setdefault(chunk.step.member, chunk.rows)

    simulate(plan, ["cpu:0"], 0.0, takes(), finished)
    longest = np.argsort(-plan.characters, kind="stable")
    for rows in first.values():
        assert set(rows) == set(longest[: len(rows)])


def test_a_promise_that_is_five_times_too_good_is_seen_through() -> None:
    stop = 0.5 * whole()
    plan = schedule(stop, factor=0.2)
    assert simulate(plan, ["cpu:0"], 0.0, takes()) <= stop
    assert plan.complete(Step("words", 0))
    assert plan.complete(Step("net", 0))
    assert not plan.complete(Step("big", 1))


@pytest.mark.parametrize("everything", [False, True])
def test_memory_that_runs_out_halves_the_chunk_down_to_one_row(everything: bool) -> None:
    plan = schedule(10 * whole(), everything=everything)
    longest = int(plan.characters.argmax())

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        too_much = chunk.step.member == "net" and (chunk.tokens > 3000 or longest in chunk.rows)
        found = takes()(device, chunk)
        return Outcome(found.loading, found.seconds, "memory") if too_much else found

    simulate(plan, ["cpu:0"], 0.0, outcome)
    assert all(plan.complete(step) for step in STEPS)  # the one row stays without an answer, and is not tried for ever


def test_a_row_that_does_not_fit_keeps_no_other_waiting() -> None:
    plan = schedule(10 * whole())
    longest, after = int(plan.characters.argmax()), list[int]()

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        found = takes()(device, chunk)
        if chunk.step == Step("net", 0) and longest in chunk.rows:
            return Outcome(found.loading, found.seconds, "memory")
        if chunk.step == Step("net", 0):
            after.append(len(chunk.rows))
        return found

    simulate(plan, ["cpu:0"], 0.0, outcome)
    assert plan.complete(Step("net", 0)) and np.mean(after) > 2


def test_a_fold_model_that_ends_every_worker_is_dropped_and_the_others_run() -> None:
    plan = schedule(10 * whole())
    tried: Counter[Step] = Counter()

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        tried[chunk.step] += 1
        found = takes()(device, chunk)
        return Outcome(found.loading, found.seconds, "lost") if chunk.step == Step("net", 1) else found

    simulate(plan, ["cpu:0"], 0.0, outcome)
    assert set(plan.dropped) == {Step("net", 1)}
    assert tried[Step("net", 1)] == IN_A_ROW
    assert all(plan.complete(step) for step in STEPS if step != Step("net", 1))


def test_a_broken_fold_model_is_dropped_at_once_with_all_its_passes() -> None:
    plan = schedule(10 * whole())

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        return Outcome(1.0, 0.0, "broken") if chunk.step == Step("words", 0) else takes()(device, chunk)

    simulate(plan, ["cpu:0"], 0.0, outcome)
    assert set(plan.dropped) == {Step("words", 0)}


def test_crashes_now_and_then_drop_nothing() -> None:
    plan = schedule(10 * whole(), 2)
    chunks: Counter[Step] = Counter()

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        found = takes()(device, chunk)
        chunks[chunk.step] += 1
        return Outcome(found.loading, found.seconds, "lost") if chunks[chunk.step] in (2, 9, 16) else found

    simulate(plan, ["cpu:0", "cpu:1"], 0.0, outcome)
    assert max(chunks.values()) > 16
    assert not plan.dropped
    assert all(plan.complete(step) for step in STEPS)


def test_without_a_plan_the_steps_run_as_they_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.planning.schedule.plan", lambda *_: 1 / 0)
    found = schedule(2.0 * whole())
    simulate(found, ["cpu:0"], 0.0, takes())
    assert found.order == STEPS and all(found.complete(step) for step in STEPS)
    assert capsys.readouterr().out.count("problem: no plan: ZeroDivisionError: division by zero; the steps run as") == 1
    with pytest.raises(ZeroDivisionError):  # the dress rehearsal wants to know
        simulate(schedule(2.0 * whole(), everything=True), ["cpu:0"], 0.0, takes())


def test_equal_inputs_give_equal_runs() -> None:
    orders = []
    for _ in range(2):
        seen: list[StepChunk] = []
        simulate(schedule(0.6 * whole(), 2), ["cpu:0", "cpu:1"], 0.0, takes(0.7, 0.2, 5), seen.append)
        orders.append([(chunk.step, chunk.rows.tolist()) for chunk in seen])
    assert orders[0] == orders[1]
    assert len(orders[0]) > 10
