"""Disentangled attention on a GPU: both position terms and the mask are the bias of scaled_dot_product_attention.

python -m benchmarks.gpu --parts attention        # how fast, on the card at hand

It keeps no scores, copies neither queries nor keys nor values, scatters no gradient, and asks the host nothing.
Not measured on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, scaled_dot_product_attention

from pipeline.models.deberta.packing import MASKED
from pipeline.models.deberta.positions import Placed, Slots, by_head, headed

ALIGNED = 8
"""The lengths that GPUs attend to are multiples of it: a bias with other rows would be copied into one with such."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    padding: Tensor | None,
    placed: Callable[[int], Placed],
    scale: float,
    dropout: float,
) -> Tensor:
    """The context of (rows, length, hidden) queries, keys and values, in their shape.

    `padding` is (1, rows, 1, length), true where no token stands; `placed` gives a length's positions.
    """
    rows, length, _ = query.shape
    blocked = query.new_zeros(rows, 1, 1, length)
    if padding is not None:
        blocked = blocked.masked_fill_(padding.transpose(0, 1), MASKED)
    lacking = -length % ALIGNED
    if lacking:
        query, key, value = (pad(each, (0, 0, 0, lacking)) for each in (query, key, value))
        blocked = pad(blocked, (0, lacking), value=MASKED)
    query, key, value = (headed(each, heads) for each in (query, key, value))
    bias = _bias(query, key, blocked, placed(length + lacking))
    query, key, value = (each.transpose(0, 1) for each in (query, key, value))
    context = scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)
    return context.transpose(1, 2).flatten(2)[:, :length]


def _bias(query: Tensor, key: Tensor, blocked: Tensor, placed: Placed) -> Tensor:
    """(rows, heads, length, length) of both position terms and of `blocked`, the mask's (rows, 1, 1, length)."""
    if placed.keys is None and placed.queries is None:
        return blocked.expand(-1, -1, query.shape[2], -1)
    bias = blocked.transpose(0, 1)
    if placed.queries is not None:
        # The mask joins a key's scores by slot: of those there are fewer than by query, from 512 tokens on.
        bias = ByDistance.apply(key, placed.queries, placed.slots, blocked.reshape(1, -1, 1))
    if placed.keys is not None:
        bias = ByDistance.apply(query, placed.keys, placed.slots, None).add_(bias)
    return bias.transpose(0, 1)


class ByDistance(torch.autograd.Function):
    """Each token's scores with what stands at every distance from it, put where that distance is.

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
