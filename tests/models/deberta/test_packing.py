"""Padding that is not computed: the division is the cheapest one, and nothing but the padding is lost."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from deberta_pairs import batch, pair, states
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.batches import padded
from pipeline.models.deberta.packing import BLOCK_COST, LENGTHS, Packed, Unpacked, division, packed


def cheapest(lengths: list[int], cost: int) -> int:
    """Of all divisions of the rows in the order of their lengths."""
    ordered = sorted(lengths)
    places = range(1, len(ordered))
    found = []
    for count in range(len(ordered)):
        for cuts in combinations(places, count):
            ends = [*cuts, len(ordered)]
            begins = [0, *cuts]
            blocks = zip(begins, ends, strict=True)
            found.append(sum(padded(ordered[end - 1]) * (end - begin) + cost for begin, end in blocks))
    return min(found)


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=7), cost=st.integers(0, 300))
@settings(deadline=None)
def test_the_division_holds_every_row_once_and_none_is_cheaper(lengths: list[int], cost: int) -> None:
    found = division(np.array(lengths), cost)
    assert sorted(row for rows, _ in found for row in rows) == list(range(len(lengths)))
    assert all(lengths[row] <= length == padded(length) for rows, length in found for row in rows)
    assert sum(len(rows) * length + cost for rows, length in found) == cheapest(lengths, cost)


def dividing(lengths: list[int], width: int) -> tuple[Packed, torch.Tensor]:
    _, mask = batch(lengths, width, left=False)
    found = packed(mask)
    assert found is not None
    return found, mask


@given(short=st.lists(st.integers(1, 40), min_size=8, max_size=12), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=20)
def test_every_token_comes_back_to_its_place(short: list[int], seed: int) -> None:
    found, mask = dividing([*short, 200], 200)
    whole = torch.randn(*mask.shape, 5, generator=torch.Generator().manual_seed(seed)) * mask[..., None]
    line = found.pack(whole)
    assert torch.equal(found.unpack(line), whole)
    for block in found.blocks:
        here = block.of(line[0])
        there = torch.ones(block.rows, block.length) if block.padding_1R1K is None else ~block.padding_1R1K[0, :, 0]
        assert not here[~there.bool()].any()
    assert sum(block.rows * block.length for block in found.blocks) == line.shape[1] < mask.numel()


def test_what_the_host_knows_of_the_lengths_gives_the_same_division() -> None:
    lengths = [9, 17, 33, 200, 190, 12, 13, 14, 15]
    asked, mask = dividing(lengths, 200)
    setattr(mask, LENGTHS, np.array(lengths))
    told = packed(mask)
    assert told is not None
    assert torch.equal(told.places, asked.places)
    assert [(each.begin, each.rows, each.length) for each in told.blocks] == [
        (each.begin, each.rows, each.length) for each in asked.blocks
    ]


def test_a_batch_stays_as_it_is_where_nothing_is_gained_or_rows_do_not_begin_on_the_left() -> None:
    assert packed(batch([200] * 9, 200, left=False)[1]) is None
    assert packed(batch([40] * 8 + [200], 200, left=True)[1]) is None
    _, mask = batch([40] * 8 + [200], 200, left=False)
    mask[0, 3] = 0
    assert packed(mask) is None
    one_short = [200 - BLOCK_COST["cpu"] // 2, *[200] * 3]
    assert packed(batch(one_short, 200, left=False)[1]) is None


def test_the_states_of_all_layers_are_there_for_who_asks() -> None:
    theirs, ours = pair()
    ids, mask = batch([5] * 8 + [90], 90, left=False)
    assert packed(mask) is not None
    asked = {"input_ids": ids, "attention_mask": mask, "output_hidden_states": True}
    expected, found = theirs(**asked).hidden_states, ours(**asked).hidden_states
    assert isinstance(found, Unpacked)
    assert len(found) == len(expected) == 3
    for one, other in zip(expected, found, strict=True):
        assert ((one - other) * mask[..., None]).abs().max() < 1e-5
    assert all(torch.equal(one, other) for one, other in zip(found[-2:], [found[1], found[2]], strict=True))


def test_a_row_alone_answers_as_in_any_batch() -> None:
    _, ours = pair()
    lengths = [5, 17, 8, 8, 9, 30, 4, 90]
    ids, mask = batch(lengths, 90, left=False)
    assert packed(mask) is not None
    together = states(ours, ids, mask)
    for row, length in enumerate(lengths):
        alone = states(ours, ids[row : row + 1, :length], mask[row : row + 1, :length])
        assert (together[row, :length] - alone[0]).abs().max() < 1e-5
