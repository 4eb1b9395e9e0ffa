"""Padding that is not computed: a padded batch becomes blocks of rows of nearly equal length, laid in one line.

What treats each token alone (dense layers, norms, dropout) sees the line of all blocks at once, and attention sees
block after block without a copy. Which rows share a block is the cheapest division: padded tokens against a fixed cost
of each further block.

Shape suffixes: R rows, L tokens of a row, K the same tokens as keys, T tokens of all blocks in one line, E width of a
token, 1 an axis of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from pipeline.data.batches import MULTIPLE
from pipeline.models.transfer import sent

BLOCK_COST = {"cpu": 64}
"""Tokens that one more block costs: calls into attention, which no size makes cheaper."""
BLOCK_COST_GPU = 512
"""Tokens that one more block costs where calls are launches; not measured."""
WORTH = 0.97
"""A batch of which more tokens than this share would be left stays as it is: moving tokens is not free."""
MASKED = -30000.0
"""The bias of a key that nobody may look at: its probability is 0, and no sum with it is -inf, in fp16 or in a kernel
that multiplies it by log2(e), as the least number of a dtype would be."""
LENGTHS = "host_lengths"
"""The attribute of a mask that holds its rows' lengths as a NumPy array, where the host knows them and no GPU need be
asked."""


@dataclass(frozen=True)
class Block:
    """Rows of one padded length, the tokens of one after the other."""

    begin: int
    """The place of its first token in the line."""
    rows: int
    length: int
    padding_1R1K: Tensor | None
    """Bool, true where no token stands; None where there is one everywhere."""

    def of(self, line_TE: Tensor) -> Tensor:
        """Returns a view of this block's part of the line, states_RLE."""
        return line_TE[self.begin : self.begin + self.rows * self.length].view(self.rows, self.length, -1)


@dataclass(frozen=True)
class Packed:
    """How a padded batch is laid into one line."""

    blocks: tuple[Block, ...]
    places: Tensor
    """(T,) the place of each token of the line in the flattened batch."""
    shape: tuple[int, int]
    """(R, L) of the batch."""

    @property
    def longest(self) -> int:
        """The length of the longest block."""
        return max(block.length for block in self.blocks)

    def pack(self, states_RLE: Tensor) -> Tensor:
        """Returns line_1TE."""
        return states_RLE.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, line_1TE: Tensor) -> Tensor:
        """Returns states_RLE, zero where nothing was computed."""
        whole = line_1TE.new_zeros(self.shape[0] * self.shape[1], line_1TE.shape[-1])
        return whole.index_copy(0, self.places, line_1TE[0]).view(*self.shape, -1)


class Unpacked(Sequence[Tensor]):
    """The states of all layers, each laid back into the batch's shape when somebody asks for it."""

    def __init__(self, first_RLE: Tensor, lines_1TE: list[Tensor], packed: Packed) -> None:
        self.first_RLE, self.lines_1TE, self.packed = first_RLE, lines_1TE, packed

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> list[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | list[Tensor]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        return self.packed.unpack(self.lines_1TE[number - 1]) if number else self.first_RLE

    def __len__(self) -> int:
        return len(self.lines_1TE) + 1

    def __iter__(self) -> Iterator[Tensor]:
        return (self[place] for place in range(len(self)))


def packed(mask_RL: Tensor) -> Packed | None:
    """Returns the blocks of a batch with this mask of ones and zeros; None where it had better stay as it is.

    That is where little is padded, or where a row's tokens do not stand at its beginning.
    """
    lengths = getattr(mask_RL, LENGTHS, None)
    rows, width = mask_RL.shape
    if lengths is None:
        lengths = mask_RL.sum(dim=1).cpu().numpy()
        starts_RL = torch.arange(width, device=mask_RL.device) < mask_RL.sum(dim=1, keepdim=True)
        if not bool((mask_RL.bool() == starts_RL).all()):
            return None
    cost = BLOCK_COST.get(mask_RL.device.type, BLOCK_COST_GPU)
    divided = division(lengths, cost)
    if sum(len(each) * length for each, length in divided) + cost * (len(divided) - 1) > WORTH * rows * width:
        return None
    blocks, places, begin = [], [], 0
    for chosen, length in divided:
        length = min(length, width)
        short = lengths[chosen] < length
        padding_1R1K = None
        if short.any():
            padding_1R1K = sent((np.arange(length) >= lengths[chosen][:, None])[None, :, None], mask_RL.device)
        places.append((chosen[:, None] * width + np.arange(length)).ravel())
        blocks.append(Block(begin, len(chosen), length, padding_1R1K))
        begin += len(chosen) * length
    line = sent(np.concatenate(places), mask_RL.device)
    return Packed(tuple(blocks), line, (rows, width))


def division(lengths: np.ndarray, cost: int) -> list[tuple[np.ndarray, int]]:
    """Returns each block's rows (their numbers) and padded length, short ones first, such that padded tokens and `cost`
    tokens per block are least together."""
    # Some cheapest division takes the rows in the order of their lengths and cuts between different lengths alone, for
    # a row gains nothing in a block of longer ones. So this is dynamic programming over the lengths: the last block
    # begins at one of the cuts before it, and what stands before that cut has been divided at its least cost already.
    order = np.argsort(lengths, kind="stable")
    rounded = -(-np.maximum(lengths[order], 1) // MULTIPLE) * MULTIPLE
    sizes, ends = np.unique(rounded, return_index=True)
    ends = np.append(ends[1:], len(order))
    # least[k] is the cost of the rows up to begins[k], where the k shortest lengths end.
    begins = np.concatenate([[0], ends])
    least, cut = np.zeros(len(begins)), np.zeros(len(begins), dtype=np.int64)
    for number, size in enumerate(sizes, 1):
        together = least[:number] + (begins[number] - begins[:number]) * size + cost
        cut[number] = together.argmin()
        least[number] = together[cut[number]]
    found, end = [], len(sizes)
    while end:
        found.append((order[begins[cut[end]] : begins[end]], int(sizes[end - 1])))
        end = cut[end]
    return found[::-1]
