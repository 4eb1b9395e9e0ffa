"""The cost model: it learns what a machine is like, says how sure it is, and is never far off for long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.planning.cost import Costs, WorkerDevice, nominal

WORK = {"layers": 12, "hidden": 768, "parameters": 85_000_000, "bytes": 350_000_000}
MEMBERS = {
    "words": {"kind": "tabular"},
    "shape": {"kind": "tabular"},
    "net": {"kind": "encoder", "work": WORK},
    "judge": {"kind": "decoder", "work": WORK | {"layers": 32, "hidden": 4096, "parameters": 7_000_000_000}},
}
HARDWARE = {"cpu": "cpu", "cuda:0": "t4", "cuda:1": "t4"}


def chunks(seed: int, count: int) -> np.ndarray:
    """(count, 2) tokens and squared lengths of chunks."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(50, 2000, size=count)
    rows = rng.integers(1, 60, size=count)
    return np.stack([lengths * rows, lengths**2 * rows], axis=1).astype(float)


def seconds(member: str, device: str, tokens: float, squares: float, speed: float) -> float:
    figures = nominal(MEMBERS[member], HARDWARE[device])
    return float(figures[1] + figures[2] * tokens + figures[3] * squares) / speed


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([0.2, 0.5, 1.0, 1.5]), st.sampled_from(list(MEMBERS)), st.integers(0, 1000))
def test_a_few_chunks_tell_the_speed_of_a_machine(speed: float, member: str, seed: int) -> None:
    costs = Costs(MEMBERS, HARDWARE)
    rng = np.random.default_rng(seed)
    for tokens, squares in chunks(seed, 6):
        noise = float(np.exp(rng.normal(0, 0.05)))
        costs.observe(member, "cuda:0", tokens, squares, seconds(member, "cuda:0", tokens, squares, speed) * noise)
    for tokens, squares in chunks(seed + 1, 20):
        mean, deviation = costs.expect(member, "cuda:0", tokens, squares)
        true = seconds(member, "cuda:0", tokens, squares, speed)
        assert abs(mean - true) <= 0.25 * true
        assert true <= mean + 4 * deviation


def test_what_one_network_shows_counts_for_the_next_on_this_device_alone() -> None:
    costs = Costs(MEMBERS, HARDWARE)
    before = {device: costs.expect("judge", device, 1e4, 1e6) for device in HARDWARE}
    words = costs.expect("words", "cuda:0", 1e4, 0.0)
    for tokens, squares in chunks(1, 4):
        costs.observe("net", "cuda:0", tokens, squares, seconds("net", "cuda:0", tokens, squares, 0.2))
    mean, deviation = costs.expect("judge", "cuda:0", 1e4, 1e6)
    assert 2.5 * before["cuda:0"][0] < mean < 6 * before["cuda:0"][0]
    assert deviation / mean < before["cuda:0"][1] / before["cuda:0"][0]
    assert costs.expect("judge", "cuda:1", 1e4, 1e6) == before["cuda:1"]
    assert costs.expect("words", "cuda:0", 1e4, 0.0) == words


def test_a_machine_that_slows_down_is_noticed() -> None:
    costs = Costs(MEMBERS, HARDWARE)
    for number, (tokens, squares) in enumerate(chunks(2, 60)):
        costs.observe(
            "net", "cuda:0", tokens, squares, seconds("net", "cuda:0", tokens, squares, 1.0 if number < 30 else 0.4)
        )
    tokens, squares = chunks(3, 1)[0]
    true = seconds("net", "cuda:0", tokens, squares, 0.4)
    mean, deviation = costs.expect("net", "cuda:0", tokens, squares)
    assert 0.7 * true < mean
    assert true < mean + 2 * deviation


def test_timings_of_a_rehearsal_replace_nominal_figures_and_are_trusted_more() -> None:
    timings = {"net": {"t4": {"load": 9.0, "a": 0.1, "b": 2.0e-3, "c": 0.0, "noise": 0.1}}}
    costs, plain = Costs(MEMBERS, HARDWARE, timings), Costs(MEMBERS, HARDWARE)
    mean, deviation = costs.expect("net", "cuda:0", 1000.0, 0.0)
    assert mean == pytest.approx(2.1, rel=1e-3)
    assert costs.loading("net", "cuda:0")[0] == 9.0
    nominal_mean, nominal_deviation = plain.expect("net", "cuda:0", 1000.0, 0.0)
    assert deviation / mean < 0.5 * nominal_deviation / nominal_mean
    assert costs.expect("net", "cpu", 1000.0, 0.0) == plain.expect("net", "cpu", 1000.0, 0.0)


def test_what_was_fitted_is_what_the_next_run_starts_from() -> None:
    costs = Costs(MEMBERS, HARDWARE)
    costs.observe_load("net", "cuda:1", 7.0)
    for tokens, squares in chunks(4, 10):
        costs.observe("net", "cuda:1", tokens, squares, seconds("net", "cuda:1", tokens, squares, 0.5))
    fitted = costs.fitted()
    assert set(fitted) == {"net"}
    assert set(fitted["net"]) == {"t4"}
    again = Costs(MEMBERS, HARDWARE, fitted)
    for tokens, squares in chunks(5, 5):
        assert again.expect("net", "cuda:0", tokens, squares)[0] == pytest.approx(
            costs.expect("net", "cuda:1", tokens, squares)[0], rel=0.02
        )
    assert again.loading("net", "cuda:0")[0] == 7.0


def test_loading_is_learned_too() -> None:
    costs = Costs(MEMBERS, HARDWARE)
    costs.observe_load("judge", "cuda:0", 100.0)
    costs.observe_load("judge", "cuda:0", 2.0)  # the base stays, adapters are small
    costs.observe_load("judge", "cuda:0", 2.0)
    costs.observe_load("judge", "cuda:0", 2.0)
    assert costs.loading("judge", "cuda:0")[0] == pytest.approx(2.0)


def test_devices_by_name() -> None:
    assert [
        WorkerDevice("cuda:0", name).hardware for name in ("cpu", "cpu:1", "Tesla T4", "NVIDIA H100 80GB HBM3", "A40")
    ] == [
        *("cpu", "cpu", "t4", "h100", "gpu"),
    ]
