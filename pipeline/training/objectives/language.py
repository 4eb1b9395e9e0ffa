"""What a backbone learns from text alone: masked tokens (encoders) or the next token (decoders)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear

from pipeline.data.batches import cut_by_budget, epoch_steps, pad
from pipeline.models.deberta.packing import LENGTHS
from pipeline.models.transfer import sent
from pipeline.training.objectives.objective import Batch, Loss

KEPT, RANDOM = 0.1, 0.1
"""Of the tokens to guess, that share stays as it is, and that share becomes another token; the rest becomes the mask
(Devlin et al. 2019)."""
IGNORED = -100


class MaskedModel(nn.Module):
    """A backbone and a fresh head that names the token at a position; it shares the embedding table."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        hidden, width = int(backbone.config.hidden_size), backbone.get_input_embeddings().embedding_dim
        self.dense, self.norm = nn.Linear(hidden, width), nn.LayerNorm(width)  # ELECTRA's tables are narrower
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.bias = nn.Parameter(torch.zeros(backbone.get_input_embeddings().num_embeddings))

    def forward(self, ids: Tensor, mask: Tensor, asked: Tensor) -> Tensor:
        """Returns the (places asked, vocabulary) logits of (sequences, length) ids and mask.

        asked: places in the flattened batch.
        """
        states = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        states = states.flatten(0, 1).index_select(0, asked)
        return linear(self.norm(gelu(self.dense(states))), self.backbone.get_input_embeddings().weight, self.bias)


class CausalModel(nn.Module):
    """A causal language model of transformers, in the form that the objective asks."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, ids: Tensor, mask: Tensor, asked: Tensor) -> Tensor:
        """Returns logits as MaskedModel does, each place answering for the token after it."""
        logits: Tensor = self.backbone(input_ids=ids, attention_mask=mask).logits
        return logits.flatten(0, 1).index_select(0, asked)


@dataclass(frozen=True)
class Language:
    """Sequences on a device; see loop.Objective. Masks are drawn anew in each step, for each sequence on its own."""

    family: ClassVar[None] = None
    sequences: list[np.ndarray]
    tokenizer: Any
    masked: float | None
    """Share of the tokens to guess; None for causal models."""
    rows_per_step: int
    tokens_per_batch: int
    seed: int
    device: str
    devices: int = 1
    """That share the rows of a batch."""

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Returns every sequence once, in steps of `rows_per_step`."""
        sizes, seeds = (self.rows_per_step, self.tokens_per_batch), (self.seed, 2, number)
        return epoch_steps(self._lengths(), 1, *sizes, seeds, self.devices)

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """Returns ids, mask and the places asked, in the flattened batch, and as targets their tokens."""
        ids, mask = pad([self.sequences[row] for row in rows], int(self.tokenizer.pad_token_id))
        targets = np.full_like(ids, IGNORED)
        if self.masked is None:
            targets[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], IGNORED)
        else:
            for place, row in enumerate(rows):
                draw = np.random.default_rng([self.seed, 3, step, int(row)])
                asked = np.flatnonzero(self._guessable(self.sequences[row]))
                count = max(1, round(self.masked * len(asked)))
                asked = draw.permutation(asked)[:count]
                targets[place, asked] = ids[place, asked]
                ids[place, asked] = self._hidden(ids[place, asked], draw)
        places = np.flatnonzero(targets != IGNORED)  # not a mask: how many it asks for, a GPU would have to say
        tensors = [sent(each, self.device) for each in (ids, mask, places)]
        setattr(tensors[1], LENGTHS, np.array([len(self.sequences[row]) for row in rows]))
        wanted = sent(targets.ravel()[places], self.device)
        return Batch(tuple(tensors), wanted, len(wanted))

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross entropy of the tokens asked for."""
        plain = cross_entropy(network(*batch.inputs).float(), batch.targets, reduction="sum")
        return Loss(plain, plain)

    def perplexity(self, network: nn.Module) -> float:
        """Returns exp of the mean cross entropy over all sequences, always with the same masks."""
        total, units = 0.0, 0
        with torch.inference_mode():
            for rows in cut_by_budget(np.arange(len(self.sequences)), self._lengths(), 1, self.tokens_per_batch):
                batch = self.batch(rows, 0)
                total += float(self.loss(network, batch).plain)
                units += batch.units
        return math.exp(total / max(units, 1))

    def _lengths(self) -> np.ndarray:
        return np.array([len(each) for each in self.sequences])

    def _guessable(self, ids: np.ndarray) -> np.ndarray:
        return ~np.isin(ids, self.tokenizer.all_special_ids)

    def _hidden(self, ids: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        fate = draw.random(len(ids))
        others = draw.integers(0, len(self.tokenizer), len(ids))
        return np.where(fate < KEPT, ids, np.where(fate < KEPT + RANDOM, others, self.tokenizer.mask_token_id))
