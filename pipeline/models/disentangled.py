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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention, softmax
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder, DisentangledSelfAttention

from pipeline.models.packing import Packed, Unpacked, packed
from pipeline.models.positions import ByDistance, Slots, by_head, slots_of

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


class Positions(NamedTuple):
    """What positions are multiplied with: once per layer for the longest rows, of which shorter ones take a part."""

    first: int
    """Place of the first distance's embedding."""
    placed: dict[str, Tensor]
    """`key`, `query` -> (heads, slots, size) of the distances from that place on."""

    def of(self, name: str, slots: Slots) -> Tensor:
        """Those that `slots` number."""
        return self.placed[name][:, slots.first - self.first : slots.last + 1 - self.first]


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
        padding = ~attention_mask.bool().transpose(0, 1)  # (1, rows, 1, length)
        positions = self._positions(rel_embeddings, hidden_states.shape[1])
        return self._context(*self._projected(hidden_states), padding, positions), None

    def _packed(self, line: Tensor, division: Packed, rel_embeddings: Tensor | None) -> Tensor:
        """(tokens, hidden) states of all blocks -> their context."""
        query, key, value = self._projected(line)
        positions = self._positions(rel_embeddings, division.longest)
        blocks = [
            self._context(block.of(query), block.of(key), block.of(value), block.padding, positions).flatten(0, 1)
            for block in division.blocks
        ]
        return torch.cat(blocks)

    def _projected(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.query_proj(states), self.key_proj(states), self.value_proj(states)

    def _context(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, positions: Positions
    ) -> Tensor:
        """(rows, length, hidden) of each, and (1, rows, 1, length) where no token stands -> the same of the context."""
        attend = self._on_cpu if query.device.type == "cpu" else self._on_gpu
        terms = 1 + sum(kind in self.pos_att_type for kind in ("c2p", "p2c"))
        return attend(query, key, value, padding, positions, 1 / math.sqrt(self.attention_head_size * terms))

    def _on_cpu(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, positions: Positions, scale: float
    ) -> Tensor:
        """Step by step, in place where that can be."""
        query = self._heads(query).contiguous() * scale
        key, value = self._heads(key).contiguous(), self._heads(value).contiguous()
        bias = self._position_bias(query, key, positions, scale) if self.relative_attention else None
        heads, rows, length, _ = query.shape
        query, key, value = (each.flatten(0, 1) for each in (query, key, value))
        mirrored = key.transpose(1, 2)
        scores = torch.bmm(query, mirrored) if bias is None else bias.baddbmm_(query, mirrored)
        scores = scores.view(heads, rows, length, length)
        if padding is not None and padding.any():
            scores.masked_fill_(padding, torch.finfo(scores.dtype).min)
        shares = self.dropout(softmax(scores, dim=-1)).view(heads * rows, length, length)
        return torch.bmm(shares, value).view(heads, rows, length, -1).permute(1, 2, 0, 3).flatten(2)

    def _position_bias(self, query: Tensor, key: Tensor, positions: Positions, scale: float) -> Tensor | None:
        """(heads * rows, length, length) of both position terms, scaled as `query` is."""
        heads, rows, length, _ = query.shape
        slots = self._slots(length, query.device)
        by_query, by_key = (each.expand(heads * rows, length, length) for each in (slots.by_query, slots.by_key))
        found: list[Tensor] = []
        for kind, content, name in (("c2p", query, "key"), ("p2c", key, "query")):
            if kind in self.pos_att_type:
                placed = positions.of(name, slots)
                placed = placed * scale if kind == "p2c" else placed
                # All rows at once: (heads, rows * length, size) x (heads, size, slots).
                by_slot = torch.bmm(by_head(content), placed.transpose(1, 2)).view(heads * rows, length, -1)
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

    def _on_gpu(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, positions: Positions, scale: float
    ) -> Tensor:
        """In one call that keeps no scores, without a copy of queries, keys or values, or a word to the host.

        Not measured on a GPU yet.
        """
        rows, length, _ = query.shape
        blocked = query.new_zeros(rows, 1, 1, length)
        if padding is not None:
            blocked = blocked.masked_fill_(padding.transpose(0, 1), MASKED)
        lacking = -length % ALIGNED
        if lacking:
            query, key, value = (pad(each, (0, 0, 0, lacking)) for each in (query, key, value))
            blocked = pad(blocked, (0, lacking), value=MASKED)
        query, key, value = self._heads(query), self._heads(key), self._heads(value)
        bias = blocked.expand(-1, -1, length + lacking, -1)
        if self.relative_attention:
            bias = self._fused_bias(query, key, blocked, positions, scale)
        query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        dropout = self.dropout.p if self.training else 0.0
        context = scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=scale)
        return context.transpose(1, 2).flatten(2)[:, :length]

    def _fused_bias(self, query: Tensor, key: Tensor, blocked: Tensor, positions: Positions, scale: float) -> Tensor:
        """(rows, heads, length, length) of both position terms and of `blocked`, the mask's (rows, 1, 1, length)."""
        slots = self._slots(query.shape[2], query.device)
        bias = blocked.transpose(0, 1)
        if "p2c" in self.pos_att_type:
            # The mask joins a key's scores by slot: of those there are fewer than by query, from 512 tokens on.
            bias = ByDistance.apply(key, positions.of("query", slots) * scale, slots, blocked.reshape(1, -1, 1))
        if "c2p" in self.pos_att_type:
            bias = ByDistance.apply(query, positions.of("key", slots) * scale, slots, None).add_(bias)
        return bias.transpose(0, 1)

    def _positions(self, rel_embeddings: Tensor | None, length: int) -> Positions:
        """Of all distances that occur in `length` tokens."""
        if not self.relative_attention:
            return Positions(0, {})
        assert rel_embeddings is not None
        slots = self._slots(-(-length // ALIGNED) * ALIGNED, rel_embeddings.device)
        embedded = self.pos_dropout(rel_embeddings)[slots.first : slots.last + 1]
        names = {"c2p": "key", "p2c": "query"}
        placed = {
            name: getattr(self, f"{name}_proj" if self.share_att_key else f"pos_{name}_proj")(embedded)
            for kind, name in names.items()
            if kind in self.pos_att_type
        }
        return Positions(slots.first, {name: self._heads(each[None])[:, 0] for name, each in placed.items()})

    def _heads(self, states: Tensor) -> Tensor:
        """(rows, length, hidden) -> (heads, rows, length, size), a view."""
        rows, length, _ = states.shape
        return states.view(rows, length, self.num_attention_heads, -1).permute(2, 0, 1, 3)

    def _slots(self, length: int, device: torch.device) -> Slots:
        return slots_of(length, self.pos_ebd_size, self.position_buckets, self.max_relative_positions, device)
