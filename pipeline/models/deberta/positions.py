"""Which embedding of a DeBERTa stands at every distance, and what it becomes in one layer.

Of pipeline/models/deberta/disentangled.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

KEPT_TABLES = 8
"""Index tables that are remembered, one per length and device: 67 MB each at 2,048 tokens, half of it on a GPU."""


class Slots(NamedTuple):
    """Which embedding belongs to which distance i - j of query i and key j; no weight has a say in it."""

    first: int
    last: int
    """Of the embeddings that are used; the others are numbered from the first one on."""
    by_distance: Tensor
    """(2 * length - 1,) from 1 - length to length - 1"""
    by_query: Tensor
    """(length, length) of query and key"""
    by_key: Tensor
    """(length, length) of key and query"""


class Placed(NamedTuple):
    """What the tokens of some rows are multiplied with, scaled as scores are; None where a network does without."""

    slots: Slots
    keys: Tensor | None
    """(heads, slots, size), for queries: `c2p`"""
    queries: Tensor | None
    """(heads, slots, size), for keys: `p2c`"""


class Positions(NamedTuple):
    """The same of a layer, for the longest rows; shorter ones take a part."""

    first: int
    """Place of the first distance's embedding."""
    keys: Tensor | None
    queries: Tensor | None

    def of(self, slots: Slots) -> Placed:
        """Those that `slots` number."""
        part = slice(slots.first - self.first, slots.last + 1 - self.first)
        keys, queries = (None if each is None else each[:, part] for each in (self.keys, self.queries))
        return Placed(slots, keys, queries)


@lru_cache(KEPT_TABLES)
def slots_of(length: int, span: int, buckets: int, positions: int, device: torch.device) -> Slots:
    """Of `length` tokens, for a DeBERTa's `span` of embeddings, `buckets` and largest distance."""
    with torch.inference_mode(False):  # a training pass may use the table next
        distances = torch.arange(1 - length, length)
        if buckets > 0 and positions > 0:
            distances = make_log_bucket_position(distances, buckets, positions).long()
        slots = (distances + span).clamp(0, 2 * span - 1)
        # Asked before the numbers lie on a GPU, which would have to finish first.
        first, last = int(slots[0]), int(slots[-1])
        slots = (slots - first).to(device)
        place = torch.arange(length, device=device)
        by_query = slots[place[:, None] - place + length - 1]
        # Only a CPU reads the mirrored table, row by row.
        by_key = by_query.t().contiguous() if device.type == "cpu" else by_query.t()
        return Slots(first, last, slots, by_query, by_key)


def headed(states: Tensor, heads: int) -> Tensor:
    """(rows, length, hidden) -> (heads, rows, length, size), a view."""
    rows, length, _ = states.shape
    return states.view(rows, length, heads, -1).permute(2, 0, 1, 3)


def by_head(each: Tensor) -> Tensor:
    """(heads, rows, length, size) -> (heads, rows * length, size)"""
    return each.reshape(each.shape[0], -1, each.shape[3])
