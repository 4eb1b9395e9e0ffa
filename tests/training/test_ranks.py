"""One fold over two devices: here two processes with gloo, of which the first is this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import encoder, training_settings
from torch import distributed
from two_ranks import CASES, STEPS, Measured, join, measured, second

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.training.ranks import Share


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, backbones: Path, lmsys: Competition
) -> Iterator[tuple[Measured, Measured, Measured]]:
    """What a process alone finds, and each of two."""
    folder = tmp_path_factory.mktemp("two")
    before, threads = os.environ.copy(), torch.get_num_threads()
    here, there = get_context("spawn").Pipe()
    other = get_context("spawn").Process(target=second, args=(folder, there, backbones, lmsys), daemon=True)
    other.start()
    torch.set_num_threads(1)
    try:
        alone = measured(backbones, lmsys, tmp_path_factory.mktemp("alone"))
        join(0, folder)
        first = measured(backbones, lmsys, folder)
        found = here.recv()
        distributed.destroy_process_group()
        yield alone, first, found
    finally:
        other.kill()
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.parametrize("case", CASES)
def test_the_first_steps_gradients_are_those_of_one_process(
    case: str, runs: tuple[Measured, Measured, Measured]
) -> None:
    (alone, shown), *ranks = (each.first[case] for each in runs)
    exact = 1e-6 if "bf16" not in case else 2e-3
    assert max(float(each.abs().max()) for each in alone.values()) > 10 * exact
    for gradients, its in ranks:
        assert gradients.keys() == alone.keys()
        assert max(float((gradients[name] - alone[name]).abs().max()) for name in alone) < exact
        for one, other in zip(its, shown, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=max(exact, 1e-5), rtol=1e-4)


def test_losses_scores_and_what_the_guard_sees_are_those_of_one_process(
    runs: tuple[Measured, Measured, Measured],
) -> None:
    alone, *ranks = (each.record for each in runs)
    assert len(alone.losses) == STEPS and len(alone.scores) == 3
    for record in ranks:
        assert np.allclose(record.losses, alone.losses, atol=1e-5)
        assert [step for step, _ in record.scores] == [step for step, _ in alone.scores]
        assert np.allclose([score for _, score in record.scores], [score for _, score in alone.scores], atol=1e-5)
        for one, other in zip(record.seen, alone.seen, strict=True):
            assert (one.rows, one.predicted) == (other.rows, other.predicted)
            assert np.allclose(one[1:6], other[1:6], atol=1e-4, rtol=1e-3)
    assert ranks[0] == ranks[1]  # to the last digit: they decide by it


def test_each_computes_its_share_and_all_end_with_the_same_weights(runs: tuple[Measured, Measured, Measured]) -> None:
    alone, *ranks = runs
    assert [sum(each.shares) for each in runs] == [8, 4, 4]
    for name, weights in ranks[0].weights.items():
        assert all(torch.equal(each, ranks[1].weights[name][key]) for key, each in weights.items())
    last = ranks[0].weights["last"]
    assert max(float((each - alone.weights["last"][key]).abs().max()) for key, each in last.items()) < 1e-4
    # Where there is dropout, each rank draws its own.
    whole = ranks[0].weights["whole"]
    assert max(float((each - alone.weights["whole"][key]).abs().max()) for key, each in whole.items()) > 1e-4


def test_a_run_that_was_interrupted_ends_with_the_bits_of_one_that_was_not(
    runs: tuple[Measured, Measured, Measured],
) -> None:
    for each in runs:
        assert all(torch.equal(weight, each.weights["resumed"][name]) for name, weight in each.weights["whole"].items())


def test_every_row_is_one_ranks_and_has_its_place() -> None:
    batches = [np.array([7, 3, 9]), np.array([4]), np.array([8, 1])]
    parts = [Share(rank, 3).of(batches) for rank in range(3)]
    assert [[part.tolist() for part in each] for each in parts] == [[[7], [4], [8]], [[3], [1]], [[9]]]
    assert Share().of(batches)[0] is batches[0] or np.array_equal(Share().of(batches)[0], batches[0])


def test_what_several_devices_cannot_is_one_line() -> None:
    with pytest.raises(PodiumError, match=r"deni trains its children on one device, .*: leave out devices"):
        training_settings(devices=2, deni={})
    with pytest.raises(PodiumError, match=r"devices: expected at most batches.rows_per_step \(8\), .* found 9"):
        training_settings(devices=9)
    with pytest.raises(PodiumError, match="devices"):
        training_settings(devices=0)
    assert encoder({"devices": 2}).devices == 2 and encoder().devices == 1
