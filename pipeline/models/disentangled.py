"""DeBERTa-v2 and -v3's attention on the weights of transformers, without its detours.

python -m benchmarks.attention        # how much faster, forward and backward

The score of query i and key j is (q_i k_j + q_i K(i-j) + k_j Q(i-j)) / sqrt(3 d), with keys K and queries Q that depend
on their distance alone (He et al. 2021, arXiv 2006.03654). Here K and Q are multiplied with all rows of
a batch at once, and for no other distances than those that occur; one table of indices, made once per length, serves
both terms in all layers; the scale goes into the queries; and what can be done in place is. On a GPU the two position
terms are the additive bias of scaled_dot_product_attention.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, softmax
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from pipeline.models.packing import Packed, Unpacked, packed

KEPT_TABLES = 8
"""Index tables that are remembered, one per length and device: 67 MB each at 2,048 tokens."""


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


class Placed(NamedTuple):
    """What positions are multiplied with."""

    first: int
    """Place of the first distance's embedding."""
    by_kind: dict[str, Tensor]
    """Position term -> (heads, slots, size) keys (c2p) or scaled queries (p2c), from that place on."""


class FastEncoder(DebertaV2Encoder):
    """Leaves distances to the attention, masks keys alone, and computes no padding that a division into blocks saves.

    transformers masks padded queries too; here they attend to the row's tokens, and nothing reads what comes of it.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_hidden_states: bool = True,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """(rows, length, hidden) states and (rows, length) mask -> the states after each layer."""
        usual = not (output_attentions or query_states is not None or relative_pos is not None) and return_dict
        division = packed(attention_mask) if usual and self.conv is None and attention_mask.dim() == 2 else None
        if division is None:
            return super().forward(
                hidden_states,
                attention_mask,
                output_hidden_states,
                output_attentions,
                query_states,
                relative_pos,
                return_dict,
            )
        lines = [division.pack(hidden_states)]
        rel_embeddings = self.get_rel_embedding()
        for layer in self.layer:
            lines.append(layer(lines[-1], division, rel_embeddings=rel_embeddings)[0])
        states: Any = Unpacked(hidden_states, lines[1:], division)
        return BaseModelOutput(states[-1], states if output_hidden_states else None)

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
        attention_mask: Tensor | Packed,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(rows, length, hidden) states and their mask, or the line of a division -> the context, in the same shape."""
        if isinstance(attention_mask, Packed):
            return self._packed(hidden_states[0], attention_mask, rel_embeddings)[None], None
        if output_attentions or query_states is not None or relative_pos is not None or attention_mask.shape[2] != 1:
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        query, key, value = self._projected(hidden_states)
        placed = self._placed(rel_embeddings, hidden_states.shape[1])
        padding = ~attention_mask.bool().transpose(0, 1)  # (1, rows, 1, length)
        full = padding.device.type == "cpu" and not padding.any()
        return self._context(query, key, value, placed, None if full else padding), None

    def _packed(self, line: Tensor, division: Packed, rel_embeddings: Tensor | None) -> Tensor:
        """(tokens, hidden) states of all blocks -> their context."""
        query, key, value = self._projected(line)
        placed = self._placed(rel_embeddings, division.longest)
        blocks = [
            self._context(block.of(query), block.of(key), block.of(value), placed, block.padding).flatten(0, 1)
            for block in division.blocks
        ]
        return torch.cat(blocks)

    def _projected(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, scaled, keys and values."""
        return self.query_proj(states) * self._scale(), self.key_proj(states), self.value_proj(states)

    def _scale(self) -> float:
        terms = 1 + sum(kind in self.pos_att_type for kind in ("c2p", "p2c"))
        return 1 / math.sqrt(self.attention_head_size * terms)

    def _context(self, query: Tensor, key: Tensor, value: Tensor, placed: Placed, padding: Tensor | None) -> Tensor:
        """(rows, length, hidden) of each -> the same of the context."""
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        bias = self._position_bias(query, key, placed) if self.relative_attention else None
        attend = self._attend if query.device.type == "cpu" else self._attend_fused
        return attend(query, key, value, bias, padding).permute(1, 2, 0, 3).flatten(2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """(heads, rows, length, size) of each -> the same of the context, step by step: for CPUs."""
        heads, rows, length, size = query.shape
        query, key, value = (each.view(heads * rows, length, size) for each in (query, key, value))
        mirrored = key.transpose(1, 2)
        scores = torch.bmm(query, mirrored) if bias is None else bias.baddbmm_(query, mirrored)
        scores = scores.view(heads, rows, length, length)
        if padding is not None:
            scores.masked_fill_(padding, torch.finfo(scores.dtype).min)
        shares = self.dropout(softmax(scores, dim=-1)).view(heads * rows, length, length)
        return torch.bmm(shares, value).view(heads, rows, length, size)

    def _attend_fused(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, padding: Tensor | None
    ) -> Tensor:
        """The same in one call, which keeps no scores: for GPUs, not measured on one yet."""
        heads, rows, length, _ = query.shape
        zeros = query.new_zeros(heads, rows, length, length)
        mask = zeros if bias is None else bias.view(heads, rows, length, length)
        if padding is not None:
            mask = mask.masked_fill(padding, torch.finfo(query.dtype).min)
        dropout = self.dropout.p if self.training else 0.0
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=1.0)

    def _placed(self, rel_embeddings: Tensor | None, length: int) -> Placed:
        """Of the distances that occur in `length` tokens: once per layer for all blocks, each a part of the longest."""
        if not self.relative_attention:
            return Placed(0, {})
        assert rel_embeddings is not None
        _, first, last = self._table(length, rel_embeddings.device)
        positions = self.pos_dropout(rel_embeddings)[first : last + 1]
        found: dict[str, Tensor] = {}
        for kind, name in (("c2p", "key"), ("p2c", "query")):
            if kind in self.pos_att_type:
                project = getattr(self, f"{name}_proj" if self.share_att_key else f"pos_{name}_proj")
                placed = self._heads(project(positions)[None])[:, 0]
                found[kind] = placed * self._scale() if kind == "p2c" else placed
        return Placed(first, found)

    def _position_bias(self, query: Tensor, key: Tensor, placed: Placed) -> Tensor | None:
        """(heads * rows, length, length) of both position terms, scaled as `query` is."""
        heads, rows, length, size = query.shape
        table, first, last = self._table(length, query.device)
        by_query, by_key = (each.expand(heads * rows, length, length) for each in table)
        found: list[Tensor] = []
        for kind, content in (("c2p", query), ("p2c", key)):
            if kind in placed.by_kind:
                near = placed.by_kind[kind][:, first - placed.first : last + 1 - placed.first]
                # All rows at once: (heads, rows * length, size) x (heads, size, slots).
                by_slot = torch.bmm(content.reshape(heads, rows * length, size), near.transpose(1, 2))
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

    def _table(self, length: int, device: torch.device) -> tuple[Tensor, int, int]:
        return _slots(length, self.pos_ebd_size, self.position_buckets, self.max_relative_positions, device)

    def _heads(self, states: Tensor) -> Tensor:
        """(rows, length, hidden) -> (heads, rows, length, size)"""
        rows, length, _ = states.shape
        return states.view(rows, length, self.num_attention_heads, -1).permute(2, 0, 1, 3).contiguous()


@lru_cache(KEPT_TABLES)
def _slots(length: int, span: int, buckets: int, positions: int, device: torch.device) -> tuple[Tensor, int, int]:
    """(2, length, length) places of the embedding of the distance i - j, counted from the first one used, by query and
    by key; and the first and the last place used. They depend on no weight."""
    with torch.inference_mode(False):  # a training pass may use the table next
        distances = torch.arange(1 - length, length, device=device)
        if buckets > 0 and positions > 0:
            distances = make_log_bucket_position(distances, buckets, positions).long()
        slots = (distances + span).clamp(0, 2 * span - 1)
        first, last = int(slots[0]), int(slots[-1])
        place = torch.arange(length, device=device)
        by_query = slots[place[:, None] - place + length - 1] - first
        return torch.stack([by_query, by_query.t()]), first, last
