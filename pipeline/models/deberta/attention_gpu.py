"""Disentangled attention on a GPU: both position terms and the mask are the bias of scaled_dot_product_attention.

python -m benchmarks.gpu --parts attention        # how fast, on the card at hand

It keeps no scores, copies neither queries nor keys nor values, scatters no gradient, and asks the host nothing.
Not measured on a GPU yet.

Shape suffixes: R rows, L tokens of a row, Q and K the same tokens as queries and as keys, N rows and tokens as one axis
(R * L), E hidden width of a token, H heads, D width of a head (E / H), S slots, which are the embeddings of distances
in use, P places by distance (2 L), 1 an axis of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, scaled_dot_product_attention

from pipeline.models.deberta.packing import MASKED
from pipeline.models.deberta.positions import Placed, Slots, by_head, exact, headed

ALIGNED = 8
"""The lengths that GPUs attend to are multiples of it: a bias with other rows would be copied into one with such."""


def attend(
    query_RLE: Tensor,
    key_RLE: Tensor,
    value_RLE: Tensor,
    heads: int,
    padding_1R1K: Tensor | None,
    placed: Callable[[int], Placed],
    scale: float,
    dropout: float,
) -> Tensor:
    """Returns context_RLE, the values that each query attends to.

    `padding_1R1K` is true where no token stands; `placed` gives the positions of a length.
    """
    rows, length, _ = query_RLE.shape
    blocked_R11K = query_RLE.new_zeros(rows, 1, 1, length)
    if padding_1R1K is not None:
        blocked_R11K = blocked_R11K.masked_fill_(padding_1R1K.transpose(0, 1), MASKED)
    lacking = -length % ALIGNED
    if lacking:
        query_RLE, key_RLE, value_RLE = (pad(each, (0, 0, 0, lacking)) for each in (query_RLE, key_RLE, value_RLE))
        blocked_R11K = pad(blocked_R11K, (0, lacking), value=MASKED)
    query_HRQD, key_HRKD, value_HRKD = (headed(each, heads) for each in (query_RLE, key_RLE, value_RLE))
    bias_RHQK = _bias(query_HRQD, key_HRKD, blocked_R11K, placed(length + lacking))
    query_RHQD, key_RHKD, value_RHKD = (each.transpose(0, 1) for each in (query_HRQD, key_HRKD, value_HRKD))
    context_RHQD = scaled_dot_product_attention(
        query_RHQD, key_RHKD, value_RHKD, attn_mask=bias_RHQK, dropout_p=dropout, scale=scale
    )
    return context_RHQD.transpose(1, 2).flatten(2)[:, :length]


def _bias(query_HRQD: Tensor, key_HRKD: Tensor, blocked_R11K: Tensor, placed: Placed) -> Tensor:
    """Returns bias_RHQK, the sum of both position terms and of `blocked`, the mask's."""
    if placed.keys_HSD is None and placed.queries_HSD is None:
        return blocked_R11K.expand(-1, -1, query_HRQD.shape[2], -1)
    bias_HRQK = blocked_R11K.transpose(0, 1)  # of one head and query, which stand for all
    if placed.queries_HSD is not None:
        # The mask joins a key's scores by slot: of those there are fewer than by query, from 512 tokens on.
        bias_HRQK = ByDistance.apply(key_HRKD, placed.queries_HSD, placed.slots, blocked_R11K.reshape(1, -1, 1))
    if placed.keys_HSD is not None:
        bias_HRQK = ByDistance.apply(query_HRQD, placed.keys_HSD, placed.slots, None).add_(bias_HRQK)
    return bias_HRQK.transpose(0, 1)


class ByDistance(torch.autograd.Function):
    """Each token's scores with what stands at every distance from it, put where that distance is.

    PyTorch's own way back from there is a scatter: by atomics in half precision, which lose digits where a thousand
    distances share a slot, or, where equal runs shall give equal bits, by sorting all scores. Here one more matrix
    product does it: a row of scores, moved by its place, is a row by distance.
    """

    @staticmethod
    def forward(ctx: Any, content_HRLD: Tensor, placed_HSD: Tensor, slots: Slots, blocked_1N1: Tensor | None) -> Tensor:
        """Returns scores_HRQK of `content`, which is queries; with `blocked` it is keys, and `blocked`, a bias of each
        key, is added to their scores."""
        ctx.save_for_backward(content_HRLD, placed_HSD)
        ctx.slots, ctx.of_keys = slots, blocked_1N1 is not None
        heads, rows, length, _ = content_HRLD.shape
        factors = by_head(content_HRLD), placed_HSD.transpose(1, 2)
        by_slot_HNS = torch.bmm(*factors) if blocked_1N1 is None else torch.baddbmm(blocked_1N1, *factors)
        by_slot_HRLS = by_slot_HNS.view(heads, rows, length, -1)
        where_HRQK = slots.by_query_QK.expand(heads, rows, length, length)
        if blocked_1N1 is None:
            return by_slot_HRLS.gather(3, where_HRQK)
        return by_slot_HRLS.transpose(2, 3).gather(2, where_HRQK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_HRQK: Tensor) -> tuple[Tensor, Tensor, None, None]:
        content_HRLD, placed_HSD = ctx.saved_tensors
        length = content_HRLD.shape[2]
        # Token l of `content` and a token m that it meets: their gradient goes to place m - l + L - 1 of row l, so that
        # a place is a distance in every row. From row to row each m moves one place left, which in memory is a stride
        # of 2 L - 1: one strided copy moves all scores, and places of distances that a row lacks stay 0. The rest is
        # matrix products: to the tokens, and to the places summed over all tokens, of which index_add then adds up
        # those that share a slot. Slots go by i - j, which is m - l where l is a key; for queries they are flipped.
        slot_of_place = ctx.slots.by_distance if ctx.of_keys else ctx.slots.by_distance.flip(0)
        slot_of_place = pad(slot_of_place, (0, 1))  # the last place stays empty: it makes the rows even
        by_place_HRLP = grad_HRQK.new_zeros(*content_HRLD.shape[:3], 2 * length)
        strides = (*by_place_HRLP.stride()[:2], 2 * length - 1, 1)
        moved_HRLL = by_place_HRLP.as_strided(grad_HRQK.shape, strides, length - 1)
        moved_HRLL.copy_(grad_HRQK.transpose(2, 3) if ctx.of_keys else grad_HRQK)
        by_place_HNP = by_head(by_place_HRLP)
        grad_content_HRLD = torch.bmm(by_place_HNP, placed_HSD[:, slot_of_place]).view(content_HRLD.shape)
        grad_places_HPD = torch.bmm(by_place_HNP.transpose(1, 2), by_head(content_HRLD))
        dtype = exact(placed_HSD)
        grad_placed_HSD = torch.zeros_like(placed_HSD, dtype=dtype)
        grad_placed_HSD.index_add_(1, slot_of_place, grad_places_HPD.to(dtype))
        return grad_content_HRLD, grad_placed_HSD.to(placed_HSD.dtype), None, None
