"""A check before the first step: can the network tell texts apart, and does it read them to their end?

A network that pools at a place before the answer (a padding token that is also the end of a turn has done that to many,
huggingface/trl issue 2758) sees the same of every row, and learns nothing at any rate, from any seed: the guard would
restart it in vain.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.batches import padded
from pipeline.data.text import Encoded
from pipeline.errors import PodiumError
from pipeline.inference.forward import batch_tensors
from pipeline.models.network import Network
from pipeline.training.objectives.supervised import Supervised

LOOKED_AT, ASKED = 256, 8
"""Of the first so many rows the shortest different sequences are asked, so many of them: in a short one each token
counts, and it costs next to nothing."""
NOTHING = 1.0e-6
"""So small a part of the largest number in a pooled state is rounding. A sound network moves by a thousand times that,
and one in half precision, which rounds more coarsely, by nothing less than its own last digit."""


def check_pooled_states(network: nn.Module, learned: Supervised, label: str) -> None:
    """Asks a fresh network about a few different sequences of `learned`; no random number is drawn.

    A network of the user's own, whose pooling nobody knows, is not asked, nor is one that learns from a single text.

    Raises: PodiumError where all of them have the same pooled state, or where the last token of one is not read.
    """
    if not isinstance(network, Network):
        return
    sequences = _different(learned)
    tokens, counts = np.unique(np.concatenate(sequences), return_counts=True)
    if len(sequences) < 2 or len(tokens) < 2:
        return
    pooled_BE = _pooled(network, sequences, learned)
    if not _moved(pooled_BE, pooled_BE[:1]).any():
        raise PodiumError(
            f"{label}: before training, {len(sequences)} different texts have the same pooled state "
            f"(pooling {network.pooling.kind}), so nothing can be learned; check the backbone's weights"
        )
    by_number = tokens[np.argsort(-counts, kind="stable")]
    ended = [np.append(each[:-1], by_number[by_number != each[-1]][0]) for each in sequences]
    unread = ~_moved(_pooled(network, ended, learned), pooled_BE)
    if unread.any():
        raise PodiumError(
            f"{label}: before training, the last token of {int(unread.sum())} of {len(sequences)} texts does not reach "
            f"the pooled state (pooling {network.pooling.kind}): it is taken before the answer's end; check the "
            f"tokenizer's pad_token (id {learned.pad_id})"
        )


def _different(learned: Supervised) -> list[np.ndarray]:
    """Returns the shortest different sequences, as many as a batch of training holds, two at least."""
    first = learned.encoded.ids[: LOOKED_AT * learned.encoded.views]
    each = sorted({ids.tobytes(): ids for ids in first}.values(), key=len)
    sizes = [number * padded(len(ids)) for number, ids in enumerate(each[:ASKED], start=1)]
    return each[: max(2, sum(size <= learned.tokens_per_batch for size in sizes))]


@torch.no_grad()
def _pooled(network: Network, sequences: list[np.ndarray], learned: Supervised) -> Tensor:
    """Returns pooled_BE of some sequences in one batch, in fp32 where the weights are: half would hide small moves."""
    encoded = Encoded(sequences, 1, {}, np.zeros(len(sequences), dtype=bool))
    ids, mask = batch_tensors(encoded, np.arange(len(sequences)), learned.pad_id, learned.device)
    states_BLE = network.eval().backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled_BE: Tensor = network.pooling(states_BLE, mask)
    return pooled_BE.float()


def _moved(one_BE: Tensor, other_BE: Tensor) -> np.ndarray:
    """Returns whether each state differs from the other by more than rounding; one that is no number does."""
    largest_B1 = torch.maximum(one_BE.abs(), other_BE.abs()).amax(dim=1, keepdim=True)
    same_B = ((one_BE - other_BE).abs() <= NOTHING * largest_B1).all(dim=1)
    return (~same_B).cpu().numpy()
