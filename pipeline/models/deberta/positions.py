"""Which embedding of a DeBERTa stands at every distance, and what it becomes in one layer.

pipeline/models/deberta/disentangled.py puts both to use.

Shape suffixes: R rows, L tokens of a row, Q and K the same tokens as queries and as keys, N rows and tokens as one axis
(R * L), E hidden width of a token, H heads, D width of a head (E / H), S slots, which are the embeddings in use.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from pipeline.models.transfer import sent

KEPT_TABLES = 8
"""Index tables that are remembered, one per length and device: 67 MB each at 2,048 tokens, half of it on a GPU."""


class Slots(NamedTuple):
    """Which embedding belongs to which distance i - j of query i and key j; no weight has a say in it."""

    first: int
    last: int
    """The first and last embedding in use; slots are numbered from the first one on."""
    by_distance: Tensor
    """(2 L - 1,) the slot of each distance from 1 - L to L - 1"""
    by_query_QK: Tensor
    by_key_KQ: Tensor


class Placed(NamedTuple):
    """What the tokens of some rows are multiplied with, scaled as scores are; None where a network does without."""

    slots: Slots
    keys_HSD: Tensor | None
    """The keys that queries meet: `c2p`."""
    queries_HSD: Tensor | None
    """The queries that keys meet: `p2c`."""


class Positions(NamedTuple):
    """The keys and queries by distance of one layer, for its longest rows; shorter rows take a part of them."""

    first: int
    """The embedding of the first slot."""
    keys_HSD: Tensor | None
    queries_HSD: Tensor | None

    def of(self, slots: Slots) -> Placed:
        """Returns the part that `slots`, of the same or of fewer tokens, number."""
        part = slice(slots.first - self.first, slots.last + 1 - self.first)
        keys_HSD, queries_HSD = (None if each is None else each[:, part] for each in (self.keys_HSD, self.queries_HSD))
        return Placed(slots, keys_HSD, queries_HSD)


NO_SLOTS = Slots(0, -1, *[torch.empty(0, dtype=torch.long)] * 3)
"""The slots of a network without relative positions, whose keys and queries by distance are None."""


@lru_cache(KEPT_TABLES)
def slots_of(length: int, span: int, buckets: int, positions: int, device: torch.device) -> Slots:
    """Returns the slots of `length` tokens, for a DeBERTa's `span` of embeddings, `buckets` and largest distance."""
    with torch.inference_mode(False):  # a training pass may use the table next
        distances = torch.arange(1 - length, length)
        if buckets > 0 and positions > 0:
            distances = make_log_bucket_position(distances, buckets, positions).long()
        slots = (distances + span).clamp(0, 2 * span - 1)
        # Asked before the numbers lie on a GPU, which would have to finish first.
        first, last = slots.numpy()[[0, -1]].tolist()
        slots = sent((slots - first).numpy(), device)
        place = torch.arange(length, device=device)
        by_query_QK = slots[place[:, None] - place + length - 1]
        # Only a CPU reads the mirrored table, row by row.
        by_key_KQ = by_query_QK.t().contiguous() if device.type == "cpu" else by_query_QK.t()
        return Slots(first, last, slots, by_query_QK, by_key_KQ)


def headed(states_RLE: Tensor, heads: int) -> Tensor:
    """Returns a view, states_HRLD."""
    rows, length, _ = states_RLE.shape
    return states_RLE.view(rows, length, heads, -1).permute(2, 0, 1, 3)


def by_head(each_HRLD: Tensor) -> Tensor:
    """Returns the tokens of all rows of each head in one line, each_HND."""
    return each_HRLD.reshape(each_HRLD.shape[0], -1, each_HRLD.shape[3])


def exact(each: Tensor) -> torch.dtype:
    """Returns the dtype in which sums over many elements of `each` are taken."""
    return torch.promote_types(each.dtype, torch.float32)
