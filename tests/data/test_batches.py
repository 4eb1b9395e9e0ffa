from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.batches import MULTIPLE, epoch_steps, inference_batches, pad, padded

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=120).map(np.array)
views, budgets = st.integers(1, 2), st.integers(16, 4000)
quick = settings(max_examples=100, deadline=None)


def size(batch: np.ndarray, lengths: np.ndarray, views: int) -> int:
    return padded(int(lengths[batch].max())) * views * len(batch)


@given(lengths, views, budgets, st.integers(1, 40), st.integers(0, 3))
@quick
def test_an_epoch_holds_every_row_once_in_batches_within_the_budget(
    lengths: np.ndarray, views: int, budget: int, rows_per_step: int, seed: int
) -> None:
    steps = epoch_steps(lengths, views, rows_per_step, budget, (seed, 0))
    flat = [row for step in steps for batch in step for row in batch]
    assert sorted(flat) == list(range(len(lengths)))
    for step in steps:
        assert sum(map(len, step)) <= rows_per_step
        assert all(len(batch) == 1 or size(batch, lengths, views) <= budget for batch in step)
    full = [step for step in steps if sum(map(len, step)) == rows_per_step]
    assert len(full) >= len(lengths) // rows_per_step


@given(lengths, views, budgets, budgets, st.integers(1, 40))
@quick
def test_the_budget_changes_neither_the_rows_of_a_step_nor_their_order(
    lengths: np.ndarray, views: int, one: int, other: int, rows_per_step: int
) -> None:
    plans = [epoch_steps(lengths, views, rows_per_step, budget, (7, 1)) for budget in (one, other)]
    first, second = [[np.concatenate(step).tolist() for step in plan] for plan in plans]
    assert first == second


@given(lengths, views, budgets, st.integers(1, 40), st.integers(1, 5))
@quick
def test_each_device_gets_a_share_of_a_batch_within_its_budget(
    lengths: np.ndarray, views: int, budget: int, rows_per_step: int, devices: int
) -> None:
    alone, plan = (epoch_steps(lengths, views, rows_per_step, budget, (7, 1), each) for each in (1, devices))
    rows = [[np.concatenate(step).tolist() for step in each] for each in (alone, plan)]
    assert rows[0] == rows[1]
    shares = [batch[rank::devices] for step in plan for batch in step for rank in range(devices)]
    assert all(len(share) < 2 or size(share, lengths, views) <= budget for share in shares)
    assert sum(map(len, plan)) <= sum(map(len, alone))


@given(lengths, st.integers(1, 20))
@quick
def test_the_same_seed_gives_the_same_plan(lengths: np.ndarray, rows_per_step: int) -> None:
    one, same = (epoch_steps(lengths, 1, rows_per_step, 500, (1, 2)) for _ in range(2))
    assert [[batch.tolist() for batch in step] for step in one] == [[batch.tolist() for batch in step] for step in same]


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(1, 101)
    plans = {
        str([[batch.tolist() for batch in step] for step in epoch_steps(lengths, 1, 8, 500, seeds)])
        for seeds in ((0, 0), (0, 1), (1, 0))
    }
    assert len(plans) == 3


@given(lengths, views, budgets)
@quick
def test_inference_takes_every_row_once_and_the_longest_first(lengths: np.ndarray, views: int, budget: int) -> None:
    batches = inference_batches(lengths, views, budget)
    flat = np.concatenate(batches)
    assert sorted(flat) == list(range(len(lengths)))
    assert (np.diff(lengths[flat]) <= 0).all()
    assert all(len(batch) == 1 or size(batch, lengths, views) <= budget for batch in batches)


def test_no_rows_make_no_batches() -> None:
    assert inference_batches(np.array([], dtype=np.int64), 1, 100) == []


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=30), min_size=1, max_size=5))
@quick
def test_sequences_are_padded_on_the_right_to_a_multiple_of_8(sequences: list[list[int]]) -> None:
    ids, mask = pad([np.array(each, dtype=np.int32) for each in sequences], 0)
    assert ids.shape == mask.shape and ids.shape[1] % MULTIPLE == 0
    assert ids.shape[1] - max(map(len, sequences)) < MULTIPLE
    for row, sequence in enumerate(sequences):
        assert ids[row].tolist() == sequence + [0] * (ids.shape[1] - len(sequence))
        assert mask[row].tolist() == [1] * len(sequence) + [0] * (ids.shape[1] - len(sequence))


def test_rows_of_a_batch_are_of_nearly_the_same_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 2000)
    steps = epoch_steps(lengths, 1, 32, 10**6, (0,))
    waste = sum(size(batch, lengths, 1) for step in steps for batch in step) / lengths.sum()
    assert waste < 1.15  # it would be about 1.9 without sorting
