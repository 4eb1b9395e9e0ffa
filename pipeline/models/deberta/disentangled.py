"""DeBERTa-v2 and -v3's attention on the weights of transformers, without its detours.

python -m benchmarks.speed.attention        # how much faster, forward and backward

The score of query i and key j is (q_i k_j + q_i K(i-j) + k_j Q(i-j)) / sqrt(3 d), with keys K and queries Q that depend
on their distance alone (He et al. 2021, arXiv 2006.03654). Here K and Q are computed once per layer and for no other
distances than those that occur; one table of indices, made once per length, serves both terms in all layers. The rest
is the device's: pipeline/models/deberta/attention_cpu.py and attention_gpu.py.

Shape suffixes: R rows, L tokens of a row, K the same tokens as keys, T tokens of all blocks in one line, E hidden width
of a token, H heads, D width of a head (E / H), S slots, which are the embeddings of distances in use, 1 an axis of one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder, DisentangledSelfAttention

from pipeline.models.deberta import attention_cpu, attention_gpu
from pipeline.models.deberta.attention_gpu import ALIGNED
from pipeline.models.deberta.packing import Packed, Unpacked, packed
from pipeline.models.deberta.positions import NO_SLOTS, Placed, Positions, Slots, headed, slots_of


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
        """Returns states_RLE after the last layer, and after each layer where they are asked for.

        `hidden_states` is (R, L, E), `attention_mask` (R, L).
        """
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
        lines_1TE = [division.pack(hidden_states)]
        rel_embeddings = self.get_rel_embedding()
        for layer in self.layer:
            lines_1TE.append(layer(lines_1TE[-1], division, rel_embeddings=rel_embeddings)[0])
        states: Any = Unpacked(hidden_states, lines_1TE[1:], division)
        return BaseModelOutput(states[-1], states if output_hidden_states else None)

    def get_attention_mask(self, attention_mask: Tensor) -> Tensor:
        """Returns the (R, L) mask as mask_R11K: keys alone are masked, for every query alike."""
        if attention_mask.dim() == 2:
            return attention_mask[:, None, None, :]
        return super().get_attention_mask(attention_mask)

    def get_rel_pos(self, hidden_states: Any, query_states: Any = None, relative_pos: Any = None) -> Any:
        """Returns the caller's own distances, where there are some; others are the attention's business."""
        return relative_pos


class FastAttention(DisentangledSelfAttention):
    """DisentangledSelfAttention by the device's `attend`, as the module's docstring says.

    What it does not know (probabilities asked for, queries or distances of the caller's own) goes the way of
    transformers.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | Packed,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns context_RLE of states_RLE and mask_R11K, or context_1TE of line_1TE and its division."""
        if isinstance(attention_mask, Packed):
            return self._packed(hidden_states[0], attention_mask, rel_embeddings)[None], None
        if output_attentions or query_states is not None or relative_pos is not None or attention_mask.shape[2] != 1:
            return super().forward(
                hidden_states, attention_mask, output_attentions, query_states, relative_pos, rel_embeddings
            )
        padding_1R1K = ~attention_mask.bool().transpose(0, 1)
        positions = self._positions(rel_embeddings, hidden_states.shape[1])
        return self._context(*self._projected(hidden_states), padding_1R1K, positions), None

    def _packed(self, line_TE: Tensor, division: Packed, rel_embeddings: Tensor | None) -> Tensor:
        """Returns context_TE: each block's rows attend to themselves."""
        query_TE, key_TE, value_TE = self._projected(line_TE)
        positions = self._positions(rel_embeddings, division.longest)
        blocks_TE = []
        for block in division.blocks:
            query_RLE, key_RLE, value_RLE = block.of(query_TE), block.of(key_TE), block.of(value_TE)
            context_RLE = self._context(query_RLE, key_RLE, value_RLE, block.padding_1R1K, positions)
            blocks_TE.append(context_RLE.flatten(0, 1))
        return torch.cat(blocks_TE)

    def _projected(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, in the shape of the states."""
        return self.query_proj(states), self.key_proj(states), self.value_proj(states)

    def _context(
        self,
        query_RLE: Tensor,
        key_RLE: Tensor,
        value_RLE: Tensor,
        padding_1R1K: Tensor | None,
        positions: Positions,
    ) -> Tensor:
        """Returns context_RLE; `padding` is true where no token stands."""
        device = query_RLE.device
        attend = attention_cpu.attend if device.type == "cpu" else attention_gpu.attend
        heads, dropout = self.num_attention_heads, self.dropout.p if self.training else 0.0

        def placed(length: int) -> Placed:
            return positions.of(self._slots(length, device))

        return attend(query_RLE, key_RLE, value_RLE, heads, padding_1R1K, placed, self._scale(), dropout)

    def _positions(self, rel_embeddings: Tensor | None, length: int) -> Positions:
        """Returns the keys and queries of all distances that occur in `length` tokens."""
        if not self.relative_attention:
            return Positions(0, None, None)
        assert rel_embeddings is not None
        slots = self._slots(-(-length // ALIGNED) * ALIGNED, rel_embeddings.device)
        embedded_SE = self.pos_dropout(rel_embeddings)[slots.first : slots.last + 1]
        keys_HSD, queries_HSD = (
            self._placed(embedded_SE, name) if kind in self.pos_att_type else None
            for kind, name in (("c2p", "key"), ("p2c", "query"))
        )
        return Positions(slots.first, keys_HSD, queries_HSD)

    def _placed(self, embedded_SE: Tensor, name: str) -> Tensor:
        """Returns this layer's placed_HSD, its keys or queries by distance, scaled."""
        projection = getattr(self, f"{name}_proj" if self.share_att_key else f"pos_{name}_proj")
        return headed(projection(embedded_SE)[None], self.num_attention_heads)[:, 0] * self._scale()

    def _scale(self) -> float:
        """Returns what scores are multiplied with: 1 / sqrt(D times the number of terms)."""
        terms = 1 + sum(kind in self.pos_att_type for kind in ("c2p", "p2c"))
        return 1 / math.sqrt(self.attention_head_size * terms)

    def _slots(self, length: int, device: torch.device) -> Slots:
        if not self.relative_attention:
            return NO_SLOTS
        return slots_of(length, self.pos_ebd_size, self.position_buckets, self.max_relative_positions, device)
