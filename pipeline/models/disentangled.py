"""DeBERTa-v2 and -v3's attention on the weights of transformers, without its detours.

python -m benchmarks.attention        # how much faster, forward and backward

The score of query i and key j is (q_i k_j + q_i K(i-j) + k_j Q(i-j)) / sqrt(3 d), with keys K and queries Q that depend
on their distance alone (He et al. 2021, arXiv 2006.03654). Here K and Q are multiplied with all rows of
a batch at once, and for no other distances than those that occur; one table of indices, made once per length, serves
both terms in all layers; the scale goes into the queries; and what can be done in place is. On a GPU the two position
terms and the mask are the additive bias of scaled_dot_product_attention, and no gradient is scattered.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, scaled_dot_product_attention, softmax
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

KEPT_TABLES = 8
"""Index tables that are remembered, one per length and device: 67 MB each at 2,048 tokens, half of it on a GPU."""
ALIGNED = 8
"""The lengths that GPUs attend to are multiples of it: a bias with other rows would be copied into one with such."""
MASKED = -30000.0
"""The bias of a key that nobody may look at: its share is 0, and no sum with it is -inf, in fp16 or in a kernel that
multiplies it by log2(e), as the least number of a dtype would be."""


def use_fast_attention(network: nn.Module) -> nn.Module:
    """Gives every DeBERTa attention in `network` this module's forward pass; weights and their names stay.

    A network without one is returned as it is.
    """
    for module in network.modules():
        # The same parameters under another forward: a new module would have to copy them, and lose ties and hooks.
        if type(module) is DisentangledSelfAttention:
            module.__class__ = FastAttention
        elif type(module) is DebertaV2Encoder:
            module.__class__ = FastEncoder
    return network


class FastEncoder(DebertaV2Encoder):
    """Leaves distances to the attention, and masks keys alone.

    transformers masks padded queries too; here they attend to the row's tokens, and nothing reads what comes of it.
    """

    def get_attention_mask(self, attention_mask: Tensor) -> Tensor:
        """(rows, length) -> (rows, 1, 1, length)"""
        if attention_mask.dim() == 2:
            return attention_mask[:, None, None, :]
        return super().get_attention_mask(attention_mask)

    def get_rel_pos(self, hidden_states: Any, query_states: Any = None, relative_pos: Any = None) -> Any:
        """Distances of the caller's own, where he has some."""
        return relative_pos


class FastAttention(DisentangledSelfAttention):
    """See the module's docstring. What it does not know (probabilities asked for, queries or distances of the caller's
    own) goes the way of transformers."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(rows, length, hidden) states and their mask -> (rows, length, hidden) context."""
        if output_attentions or query_states is not None or relative_pos is not None or attention_mask.shape[2] != 1:
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        terms = 1 + sum(kind in self.pos_att_type for kind in ("c2p", "p2c"))
        scale = 1 / math.sqrt(self.attention_head_size * terms)
        attend = self._on_cpu if hidden_states.device.type == "cpu" else self._on_gpu
        return attend(hidden_states, attention_mask.bool(), rel_embeddings, scale), None

    def _on_cpu(self, states: Tensor, mask: Tensor, rel_embeddings: Tensor | None, scale: float) -> Tensor:
        """(rows, length, hidden) states and their (rows, 1, 1, length) mask -> (rows, length, hidden) context."""
        query = self._heads(self.query_proj(states)).contiguous() * scale
        key, value = (self._heads(project(states)).contiguous() for project in (self.key_proj, self.value_proj))
        bias = self._position_bias(query, key, rel_embeddings, scale) if self.relative_attention else None
        context = self._attend(query, key, value, bias, ~mask.transpose(0, 1))
        return context.permute(1, 2, 0, 3).flatten(2)

    def _on_gpu(self, states: Tensor, mask: Tensor, rel_embeddings: Tensor | None, scale: float) -> Tensor:
        """The same in one call that keeps no scores, without a copy of queries, keys or values, or a word to the host.

        Not measured on a GPU yet.
        """
        length = states.shape[1]
        lacking = -length % ALIGNED
        if lacking:
            states, mask = pad(states, (0, 0, 0, lacking)), pad(mask, (0, lacking))
        projections = (self.query_proj, self.key_proj, self.value_proj)
        query, key, value = (self._heads(project(states)) for project in projections)
        blocked = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, MASKED)
        bias = blocked.expand(-1, -1, mask.shape[-1], -1)
        if self.relative_attention:
            bias = self._fused_bias(query, key, rel_embeddings, scale, blocked)
        query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        dropout = self.dropout.p if self.training else 0.0
        context = scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)
        return context.transpose(1, 2).flatten(2)[:, :length]

    def _fused_bias(
        self, query: Tensor, key: Tensor, rel_embeddings: Tensor | None, scale: float, blocked: Tensor
    ) -> Tensor:
        """(rows, heads, length, length) of both position terms and of `blocked`, the mask's (rows, 1, 1, length)."""
        assert rel_embeddings is not None
        slots = self._slots(query)
        positions = self.pos_dropout(rel_embeddings)[slots.first : slots.last + 1]
        bias = blocked.transpose(0, 1)
        if "p2c" in self.pos_att_type:
            # The mask joins a key's scores by slot: of those there are fewer than by query, from 512 tokens on.
            bias = _Placed.apply(key, self._placed(positions, "query") * scale, slots, blocked.reshape(1, -1, 1))
        if "c2p" in self.pos_att_type:
            bias = _Placed.apply(query, self._placed(positions, "key") * scale, slots, None).add_(bias)
        return bias.transpose(0, 1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, padding: Tensor) -> Tensor:
        """(heads, rows, length, size) of each -> the same of the context, step by step: for CPUs."""
        heads, rows, length, size = query.shape
        query, key, value = (each.view(heads * rows, length, size) for each in (query, key, value))
        mirrored = key.transpose(1, 2)
        scores = torch.bmm(query, mirrored) if bias is None else bias.baddbmm_(query, mirrored)
        scores = scores.view(heads, rows, length, length)
        if padding.any():
            scores.masked_fill_(padding, torch.finfo(scores.dtype).min)
        shares = self.dropout(softmax(scores, dim=-1)).view(heads * rows, length, length)
        return torch.bmm(shares, value).view(heads, rows, length, size)

    def _position_bias(self, query: Tensor, key: Tensor, rel_embeddings: Tensor | None, scale: float) -> Tensor | None:
        """(heads * rows, length, length) of both position terms, scaled as `query` is."""
        assert rel_embeddings is not None
        heads, rows, length, size = query.shape
        slots = self._slots(query)
        positions = self.pos_dropout(rel_embeddings)[slots.first : slots.last + 1]
        by_query, by_key = (each.expand(heads * rows, length, length) for each in (slots.by_query, slots.by_key))
        found: list[Tensor] = []
        for kind, content, name in (("c2p", query, "key"), ("p2c", key, "query")):
            if kind in self.pos_att_type:
                placed = self._placed(positions, name)
                placed = placed * scale if kind == "p2c" else placed
                # All rows at once: (heads, rows * length, size) x (heads, size, slots).
                by_slot = torch.bmm(content.reshape(heads, rows * length, size), placed.transpose(1, 2))
                by_slot = by_slot.view(heads * rows, length, -1)
                if kind == "c2p":
                    found.append(by_slot.gather(2, by_query))
                elif torch.is_grad_enabled():
                    # Forward this is the slower way to turn a key's row into a column, backward by far the faster one.
                    found.append(by_slot.gather(2, by_key).transpose(1, 2))
                else:
                    found.append(by_slot.transpose(1, 2).gather(1, by_query))
        if not found:
            return None
        return found[0].add_(found[1]) if len(found) == 2 else found[0].contiguous()

    def _placed(self, positions: Tensor, name: str) -> Tensor:
        """(slots, hidden) embeddings of distances as queries or keys, by `name`: (heads, slots, size)."""
        project = getattr(self, f"{name}_proj" if self.share_att_key else f"pos_{name}_proj")
        return self._heads(project(positions)[None])[:, 0]

    def _heads(self, states: Tensor) -> Tensor:
        """(rows, length, hidden) -> (heads, rows, length, size), a view."""
        rows, length, _ = states.shape
        return states.view(rows, length, self.num_attention_heads, -1).permute(2, 0, 1, 3)

    def _slots(self, query: Tensor) -> Slots:
        """For (heads, rows, length, size)."""
        shape = (self.pos_ebd_size, self.position_buckets, self.max_relative_positions)
        return _slots(query.shape[2], *shape, query.device)


class _Placed(torch.autograd.Function):
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
        factors = _by_head(content), placed.transpose(1, 2)
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
        by_distance = _by_head(by_distance)
        of_content = torch.bmm(by_distance, placed[:, order]).view(content.shape)
        shares = torch.bmm(by_distance.transpose(1, 2), _by_head(content))
        exact = torch.promote_types(placed.dtype, torch.float32)
        of_placed = torch.zeros_like(placed, dtype=exact).index_add_(1, order, shares.to(exact))
        return of_content, of_placed.to(placed.dtype), None, None


def _by_head(each: Tensor) -> Tensor:
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
def _slots(length: int, span: int, buckets: int, positions: int, device: torch.device) -> Slots:
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
