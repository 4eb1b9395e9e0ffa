"""Scores of tokens with what stands at every distance from them: which embedding that is, and the way back to it.

Both are of pipeline/models/disentangled.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

KEPT_TABLES = 8
"""Index tables that are remembered, one per length and device: 67 MB each at 2,048 tokens, half of it on a GPU."""


class ByDistance(torch.autograd.Function):
    """Each token's scores with what stands at every distance from it, put where that distance is, for GPUs.

    PyTorch's own way back from there is a scatter: by atomics in half precision, which lose digits where a thousand
    distances share a slot, or, where equal runs shall give equal bits, by sorting all scores. Here one more matrix
    product does it: a row of scores, moved by its place, is a row by distance.
    """

    @staticmethod
    def forward(ctx: Any, content: Tensor, placed: Tensor, slots: Slots, keys: Tensor | None) -> Tensor:
        """(heads, rows, length, size) x (heads, slots, size) -> (heads, rows, length, length), the scores of query and
        key. With `keys`, (1, rows * length, 1), `content` is keys, and `keys` is added to their scores."""
        ctx.save_for_backward(content, placed)
        ctx.slots, ctx.of_keys = slots, keys is not None
        heads, rows, length, _ = content.shape
        factors = by_head(content), placed.transpose(1, 2)
        by_slot = torch.bmm(*factors) if keys is None else torch.baddbmm(keys, *factors)
        by_slot = by_slot.view(heads, rows, length, -1)
        where = slots.by_query.expand(heads, rows, length, length)
        return by_slot.gather(3, where) if keys is None else by_slot.transpose(2, 3).gather(2, where)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        content, placed = ctx.saved_tensors
        length = content.shape[2]
        order = ctx.slots.by_distance if ctx.of_keys else ctx.slots.by_distance.flip(0)
        order = pad(order, (0, 1))  # the last place stays empty: it makes the rows even
        by_distance = gradient.new_zeros(*content.shape[:3], 2 * length)
        # One row further down is one place further left.
        strides = (*by_distance.stride()[:2], 2 * length - 1, 1)
        moved = by_distance.as_strided(gradient.shape, strides, length - 1)
        moved.copy_(gradient.transpose(2, 3) if ctx.of_keys else gradient)
        by_distance = by_head(by_distance)
        of_content = torch.bmm(by_distance, placed[:, order]).view(content.shape)
        shares = torch.bmm(by_distance.transpose(1, 2), by_head(content))
        exact = torch.promote_types(placed.dtype, torch.float32)
        of_placed = torch.zeros_like(placed, dtype=exact).index_add_(1, order, shares.to(exact))
        return of_content, of_placed.to(placed.dtype), None, None


def by_head(each: Tensor) -> Tensor:
    """(heads, rows, length, size) -> (heads, rows * length, size)"""
    return each.reshape(each.shape[0], -1, each.shape[3])


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
