"""Disentangled attention on a CPU: a few rows of one head at a time, so that their scores never leave the cache.

python -m benchmarks.speed.attention        # how much faster than transformers, forward and backward

A step of attention reads and writes (length, length) scores a dozen times and computes little with each of them. Done
for a whole batch at once, every such pass goes through memory; done for a chunk, through the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.deberta.dropout import noise_like
from pipeline.models.deberta.packing import MASKED
from pipeline.models.deberta.positions import Placed, Slots, headed

CHUNK = 2**19
"""Scores that are computed together: 2 MB in fp32."""


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
    blocked = None
    if padding is not None and padding.any():
        blocked = query.new_zeros(padding.shape).masked_fill_(padding, MASKED)
    slots, keys, queries = placed(query.shape[1])
    context: Tensor = Chunked.apply(query, key, value, keys, queries, blocked, heads, slots, scale, dropout)
    return context


class Chunk(NamedTuple):
    """Some rows of some heads."""

    place: tuple[slice, slice]
    """Its heads and rows."""
    query: Tensor
    """(heads, rows, length, size), as are key and value"""
    key: Tensor
    value: Tensor
    keys: Tensor | None
    """(heads, slots, size) of the distances, scaled; as are queries"""
    queries: Tensor | None


class Chunked(torch.autograd.Function):
    """(rows, length, hidden) queries, keys and values, (heads, slots, size) of distances -> the context."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """See `attend`; after the tensors come the mask's bias, and what is no tensor."""
        *tensors, blocked, ctx.heads, ctx.slots, ctx.scale, dropout = given
        context, kept = torch.empty_like(tensors[0], memory_format=torch.contiguous_format), []
        with torch.autocast("cpu", enabled=False):
            for chunk in _chunks(tensors, ctx.heads):
                scores = _scores(chunk, ctx.slots, ctx.scale)
                if blocked is not None:
                    scores.add_(blocked[:, chunk.place[1]])
                shares = torch.softmax(scores, dim=-1)
                noise = noise_like(shares, dropout) if dropout else None
                used = shares if noise is None else shares * noise
                headed(context, ctx.heads)[chunk.place] = torch.matmul(used, chunk.value)
                if any(ctx.needs_input_grad):
                    kept += [shares, noise]
        ctx.save_for_backward(*tensors, *kept)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: gradient checkpointing computes them when it is asked
        tensors, kept = saved[:5], iter(saved[5:])
        found = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in tensors[:3]]
        of_query, of_key, of_value = (headed(each, ctx.heads) for each in found)
        # Sums over all rows: in half precision they would lose what each row adds.
        of_keys, of_queries = (
            None if each is None else torch.zeros_like(each, dtype=exact(each)) for each in tensors[3:]
        )
        arrived = headed(gradient.contiguous(), ctx.heads)
        for chunk, shares, noise in zip(_chunks(tensors, ctx.heads), kept, kept, strict=True):
            above = arrived[chunk.place]
            used = shares if noise is None else shares * noise
            of_value[chunk.place] = torch.matmul(used.transpose(2, 3), above)
            below = torch.matmul(above, chunk.value.transpose(2, 3))
            if noise is not None:
                below.mul_(noise)
            below = torch._softmax_backward_data(below, shares, -1, shares.dtype)
            mirrored = below.transpose(2, 3)
            by_query = torch.matmul(below, chunk.key).mul_(ctx.scale)
            by_key = torch.matmul(mirrored, chunk.query).mul_(ctx.scale)
            heads = chunk.place[0]
            if chunk.keys is not None and of_keys is not None:
                _back(below, ctx.slots.by_query, chunk.query, chunk.keys, by_query, of_keys[heads])
            if chunk.queries is not None and of_queries is not None:
                _back(mirrored, ctx.slots.by_key, chunk.key, chunk.queries, by_key, of_queries[heads])
            of_query[chunk.place], of_key[chunk.place] = by_query, by_key
        sums = (None if each is None else each.to(gradient.dtype) for each in (of_keys, of_queries))
        return *found, *sums, None, None, None, None, None


def _chunks(tensors: Sequence[Any], heads: int) -> Iterator[Chunk]:
    """Of queries, keys, values and both kinds of distances: all rows of some heads where they fit, else some of one."""
    rows, length, _ = tensors[0].shape
    query, key, value = (headed(each, heads) for each in tensors[:3])
    keys, queries = tensors[3:]
    slots = max([length] + [each.shape[1] for each in (keys, queries) if each is not None])
    fit = max(1, CHUNK // (length * slots))
    heads_each, rows_each = max(1, fit // rows), min(rows, fit)
    for head in range(0, heads, heads_each):
        which = slice(head, head + heads_each)
        placed = (None if each is None else each[which] for each in (keys, queries))
        keys_here, queries_here = placed
        for row in range(0, rows, rows_each):
            place = (which, slice(row, row + rows_each))
            yield Chunk(place, query[place], key[place], value[place], keys_here, queries_here)


def _scores(chunk: Chunk, slots: Slots, scale: float) -> Tensor:
    """(heads, rows, length, length) of queries and keys, without the mask."""
    heads, rows, length, _ = chunk.query.shape
    where = slots.by_query.expand(heads, rows, length, length)
    parts: list[Tensor] = []
    if chunk.keys is not None:
        parts.append(_by_slot(chunk.query, chunk.keys).gather(3, where))
    if chunk.queries is not None:
        parts.append(_by_slot(chunk.key, chunk.queries).transpose(2, 3).gather(2, where))
    query, key = chunk.query.flatten(0, 1), chunk.key.flatten(0, 1).transpose(1, 2)
    if not parts:
        return torch.bmm(query, key).mul_(scale).view(where.shape)
    bias = parts[0].add_(parts[1]) if len(parts) == 2 else parts[0].contiguous()
    return bias.view(-1, length, length).baddbmm_(query, key, alpha=scale).view(where.shape)


def _by_slot(content: Tensor, placed: Tensor) -> Tensor:
    """(heads, rows, length, size) x (heads, slots, size) -> (heads, rows, length, slots)"""
    return torch.bmm(content.flatten(1, 2), placed.transpose(1, 2)).view(*content.shape[:3], -1)


def _back(
    gradient: Tensor, where: Tensor, content: Tensor, placed: Tensor, of_content: Tensor, of_placed: Tensor
) -> None:
    """Adds to the gradients of `content` and `placed` what comes of `_by_slot` and of looking up `where`."""
    wide = gradient.to(exact(gradient))  # many distances may share a slot
    by_slot = wide.new_zeros(*content.shape[:3], placed.shape[1])
    by_slot.scatter_add_(3, where.expand(gradient.shape), wide)
    by_slot = by_slot.to(content.dtype).flatten(1, 2)
    of_content.add_(torch.bmm(by_slot, placed).view(content.shape))
    of_placed.add_(torch.bmm(by_slot.transpose(1, 2), content.flatten(1, 2)))


def exact(each: Tensor) -> torch.dtype:
    """The dtype in which sums over many elements of `each` are taken."""
    return torch.promote_types(each.dtype, torch.float32)
