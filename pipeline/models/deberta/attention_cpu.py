"""Disentangled attention on a CPU: a few rows of one head at a time, so that their scores never leave the cache.

python -m benchmarks.speed.attention        # how much faster than transformers, forward and backward

A step of attention reads and writes (length, length) scores a dozen times and computes little with each of them. Done
for a whole batch at once, every such pass goes through memory; done for a chunk, through the processor's cache.

Shape suffixes: R rows, L tokens of a row, Q and K the same tokens as queries and as keys, E hidden width of a token,
H heads, D width of a head (E / H), S slots, which are the embeddings of distances in use, B heads and rows as one axis
(H * R), N rows and tokens as one (R * L), 1 an axis of one. Of a chunk, R and H are the rows and heads that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.models.deberta.dropout import noise_like
from pipeline.models.deberta.packing import MASKED
from pipeline.models.deberta.positions import Placed, Slots, exact, headed

CHUNK = 2**19
"""Scores that are computed together: 2 MB in fp32."""


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
    blocked_1R1K = None
    if padding_1R1K is not None and padding_1R1K.any():
        blocked_1R1K = query_RLE.new_zeros(padding_1R1K.shape).masked_fill_(padding_1R1K, MASKED)
    slots, keys_HSD, queries_HSD = placed(query_RLE.shape[1])
    context_RLE: Tensor = Chunked.apply(
        query_RLE, key_RLE, value_RLE, keys_HSD, queries_HSD, blocked_1R1K, heads, slots, scale, dropout
    )
    return context_RLE


class Chunk(NamedTuple):
    """Some rows of some heads."""

    place: tuple[slice, slice]
    """The heads and rows that it holds."""
    query_HRQD: Tensor
    key_HRKD: Tensor
    value_HRKD: Tensor
    keys_HSD: Tensor | None
    """The keys and queries by distance, scaled."""
    queries_HSD: Tensor | None


class Chunked(torch.autograd.Function):
    """Attention chunk by chunk, with its own way back.

    Autograd's way back through a slice makes a tensor of the whole batch's size, which would be one per chunk. Here the
    chunks are gone through once more, each writes its gradients to their place, and all that it leaves behind for this
    on the way forth are its probabilities and its dropout.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Returns context_RLE, as `attend` does; `given` ends in the mask's bias and what is no tensor."""
        *tensors, blocked_1R1K, ctx.heads, ctx.slots, ctx.scale, dropout = given
        context_RLE, kept = torch.empty_like(tensors[0], memory_format=torch.contiguous_format), []
        # The projections have chosen the precision, and all of this keeps it. Under autocast softmax would answer in
        # fp32, and the way back, where autocast is off, would mix that with gradients in half precision.
        with torch.autocast("cpu", enabled=False):
            for chunk in _chunks(tensors, ctx.heads):
                scores_HRQK = _scores(chunk, ctx.slots, ctx.scale)
                if blocked_1R1K is not None:
                    scores_HRQK.add_(blocked_1R1K[:, chunk.place[1]])
                probs_HRQK = torch.softmax(scores_HRQK, dim=-1)
                noise_HRQK = noise_like(probs_HRQK, dropout) if dropout else None
                used_HRQK = probs_HRQK if noise_HRQK is None else probs_HRQK * noise_HRQK
                # `headed` is a view: what is written here stands in the context, the heads of a token side by side.
                headed(context_RLE, ctx.heads)[chunk.place] = torch.matmul(used_HRQK, chunk.value_HRKD)
                if any(ctx.needs_input_grad):
                    kept += [probs_HRQK, noise_HRQK]
        ctx.save_for_backward(*tensors, *kept)
        return context_RLE

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_context_RLE: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: gradient checkpointing computes them when it is asked
        tensors, kept = saved[:5], iter(saved[5:])
        grads_RLE = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in tensors[:3]]
        grad_query_HRQD, grad_key_HRKD, grad_value_HRKD = (headed(each, ctx.heads) for each in grads_RLE)
        # Sums over all rows: in half precision they would lose what each row adds.
        grad_keys_HSD, grad_queries_HSD = (
            None if each is None else torch.zeros_like(each, dtype=exact(each)) for each in tensors[3:]
        )
        grad_context_HRQD = headed(grad_context_RLE.contiguous(), ctx.heads)
        for chunk, probs_HRQK, noise_HRQK in zip(_chunks(tensors, ctx.heads), kept, kept, strict=True):
            # Forward was context = (softmax(scores) * noise) value, with three terms in the scores. So the gradient
            # goes through this product and the dropout to the probabilities, through softmax to the scores, and from
            # there into each term: query times key, query times keys by distance, key times queries by distance.
            # Only the first is scaled here, since keys and queries by distance come scaled. A chunk has its part of
            # query, key and value to itself and sets their gradients; what is by distance it shares, and adds to.
            grad_chunk_HRQD = grad_context_HRQD[chunk.place]
            used_HRQK = probs_HRQK if noise_HRQK is None else probs_HRQK * noise_HRQK
            grad_value_HRKD[chunk.place] = torch.matmul(used_HRQK.transpose(2, 3), grad_chunk_HRQD)
            grad_HRQK = torch.matmul(grad_chunk_HRQD, chunk.value_HRKD.transpose(2, 3))  # of what was used
            if noise_HRQK is not None:
                grad_HRQK.mul_(noise_HRQK)
            grad_HRQK = torch._softmax_backward_data(grad_HRQK, probs_HRQK, -1, probs_HRQK.dtype)  # of the scores
            grad_HRKQ = grad_HRQK.transpose(2, 3)
            of_query_HRQD = torch.matmul(grad_HRQK, chunk.key_HRKD).mul_(ctx.scale)
            of_key_HRKD = torch.matmul(grad_HRKQ, chunk.query_HRQD).mul_(ctx.scale)
            heads, slots = chunk.place[0], ctx.slots
            if chunk.keys_HSD is not None and grad_keys_HSD is not None:
                of_keys_HSD = grad_keys_HSD[heads]
                _back(grad_HRQK, slots.by_query_QK, chunk.query_HRQD, chunk.keys_HSD, of_query_HRQD, of_keys_HSD)
            if chunk.queries_HSD is not None and grad_queries_HSD is not None:
                of_queries_HSD = grad_queries_HSD[heads]
                _back(grad_HRKQ, slots.by_key_KQ, chunk.key_HRKD, chunk.queries_HSD, of_key_HRKD, of_queries_HSD)
            grad_query_HRQD[chunk.place], grad_key_HRKD[chunk.place] = of_query_HRQD, of_key_HRKD
        sums_HSD = (
            None if each is None else each.to(grad_context_RLE.dtype) for each in (grad_keys_HSD, grad_queries_HSD)
        )
        return *grads_RLE, *sums_HSD, None, None, None, None, None


def _chunks(tensors: Sequence[Any], heads: int) -> Iterator[Chunk]:
    """Yields the chunks of queries, keys, values and both kinds of distances, in an order that never changes.

    A chunk holds all rows of some heads where they fit, else some rows of one head.
    """
    rows, length, _ = tensors[0].shape
    query_HRQD, key_HRKD, value_HRKD = (headed(each, heads) for each in tensors[:3])
    keys_HSD, queries_HSD = tensors[3:]
    # Short rows have more slots than tokens, and then the scores by slot are what must fit.
    slots = max([length] + [each.shape[1] for each in (keys_HSD, queries_HSD) if each is not None])
    fit = max(1, CHUNK // (length * slots))
    heads_each, rows_each = max(1, fit // rows), min(rows, fit)
    for head in range(0, heads, heads_each):
        which = slice(head, head + heads_each)
        keys_here_HSD, queries_here_HSD = (None if each is None else each[which] for each in (keys_HSD, queries_HSD))
        for row in range(0, rows, rows_each):
            place = (which, slice(row, row + rows_each))
            yield Chunk(place, query_HRQD[place], key_HRKD[place], value_HRKD[place], keys_here_HSD, queries_here_HSD)


def _scores(chunk: Chunk, slots: Slots, scale: float) -> Tensor:
    """Returns scores_HRQK of queries and keys, without the mask."""
    heads, rows, length, _ = chunk.query_HRQD.shape
    shape = (heads, rows, length, length)
    query_BQD, key_BDK = chunk.query_HRQD.flatten(0, 1), chunk.key_HRKD.flatten(0, 1).transpose(1, 2)
    if chunk.keys_HSD is None and chunk.queries_HSD is None:
        return torch.bmm(query_BQD, key_BDK).mul_(scale).view(shape)
    # A token is multiplied once with each slot, and each distance looks its slot up. The keys' scores by slot are laid
    # on their side, (S, K), and looked up along the slots: so they stand as (Q, K) at once, and one table serves both
    # terms. The product of the contents is added by baddbmm_ into the memory of these terms, which saves a pass over
    # the scores and a second tensor of their size in the cache.
    where_HRQK = slots.by_query_QK.expand(shape)
    parts_HRQK: list[Tensor] = []
    if chunk.keys_HSD is not None:
        parts_HRQK.append(_by_slot(chunk.query_HRQD, chunk.keys_HSD).gather(3, where_HRQK))
    if chunk.queries_HSD is not None:
        parts_HRQK.append(_by_slot(chunk.key_HRKD, chunk.queries_HSD).transpose(2, 3).gather(2, where_HRQK))
    bias_HRQK = parts_HRQK[0].add_(parts_HRQK[1]) if len(parts_HRQK) == 2 else parts_HRQK[0].contiguous()
    return bias_HRQK.view(-1, length, length).baddbmm_(query_BQD, key_BDK, alpha=scale).view(shape)


def _by_slot(content_HRLD: Tensor, placed_HSD: Tensor) -> Tensor:
    """Returns by_slot_HRLS, the product of each token with each slot."""
    by_slot_HNS = torch.bmm(content_HRLD.flatten(1, 2), placed_HSD.transpose(1, 2))
    return by_slot_HNS.view(*content_HRLD.shape[:3], -1)


def _back(
    grad_HRLK: Tensor,
    where_LK: Tensor,
    content_HRLD: Tensor,
    placed_HSD: Tensor,
    grad_content_HRLD: Tensor,
    grad_placed_HSD: Tensor,
) -> None:
    """Adds to the gradients of `content` and `placed` what comes of `_by_slot` and of looking up `where`."""
    # The way back of a lookup adds up all that was read from one place. Many distances may share a slot, and a long sum
    # in half precision loses what each of them adds.
    wide_HRLK = grad_HRLK.to(exact(grad_HRLK))
    by_slot_HRLS = wide_HRLK.new_zeros(*content_HRLD.shape[:3], placed_HSD.shape[1])
    by_slot_HRLS.scatter_add_(3, where_LK.expand(grad_HRLK.shape), wide_HRLK)
    by_slot_HNS = by_slot_HRLS.to(content_HRLD.dtype).flatten(1, 2)
    grad_content_HRLD.add_(torch.bmm(by_slot_HNS, placed_HSD).view(content_HRLD.shape))
    grad_placed_HSD.add_(torch.bmm(by_slot_HNS.transpose(1, 2), content_HRLD.flatten(1, 2)))
