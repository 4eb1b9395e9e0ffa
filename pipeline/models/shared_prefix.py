"""The common beginning of a row's sequences, computed once: a question with its options, a text with several labels.

The beginning goes through a causal network alone, what it leaves for later tokens to look at (keys and values) is
handed to each of the row's endings, and they go on from there. What comes out is what whole sequences give, but for the
order of sums.

Shape suffixes: R rows, V views of a row, B sequences of a batch (R * V), L tokens of a sequence, P tokens of a common
beginning, S of what follows it, K tokens that may be looked at (P + S), E hidden width, 1 an axis of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.batches import padded
from pipeline.models.deberta.packing import LENGTHS
from pipeline.models.transfer import sent

PREFIXES = "host_prefixes"
"""The attribute of a mask that holds how many tokens each row's sequences have in common at their beginning."""
WORTH = 0.85
"""A batch of which more than this share of its tokens would be left is computed whole: two passes are not free."""


def common_prefixes(sequences: Sequence[np.ndarray], views: int) -> np.ndarray:
    """Returns how many tokens each row's `views` sequences begin with in common, (rows,), one short of the shortest."""
    found = []
    for begin in range(0, len(sequences), views):
        first, *others = sequences[begin : begin + views]
        length = min(len(each) for each in (first, *others)) - 1
        for other in others:
            differ = np.flatnonzero(first[:length] != other[:length])
            length = int(differ[0]) if len(differ) else length
        found.append(length)
    return np.array(found, dtype=np.int64)


def whole_states(backbone: Any, input_ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the states of all tokens, states_BLE, and their mask."""
    return backbone(input_ids=input_ids_BL, attention_mask=mask_BL).last_hidden_state, mask_BL


def last_states(backbone: Any, input_ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the states of what follows the common beginnings, states_BSE, and its mask_BS; of all tokens where the
    mask does not tell the beginnings, or too little would be saved."""
    prefixes_R, lengths_B = getattr(mask_BL, PREFIXES, None), getattr(mask_BL, LENGTHS, None)
    if prefixes_R is None or lengths_B is None:
        return whole_states(backbone, input_ids_BL, mask_BL)
    views = len(lengths_B) // len(prefixes_R)
    begin_B = prefixes_R.repeat(views)
    first, after = padded(int(begin_B.max())), padded(int((lengths_B - begin_B).max()))
    # A window of attention counts places, and a shorter beginning leaves some empty before what follows it.
    window = getattr(backbone.config.get_text_config(), "sliding_window", None)
    left = len(prefixes_R) * first + len(lengths_B) * after
    worth = views > 1 and begin_B.min() > 0 and left < WORTH * input_ids_BL.numel()
    if not worth or (window is not None and first + after > window):
        return whole_states(backbone, input_ids_BL, mask_BL)
    device = input_ids_BL.device
    begin_B1, end_B1 = (sent(each, device)[:, None] for each in (begin_B, lengths_B))
    mask_BP = (torch.arange(first, device=device) < begin_B1).long()
    cache = backbone(
        input_ids=input_ids_BL[::views, :first], attention_mask=mask_BP[::views], use_cache=True
    ).past_key_values
    cache.batch_repeat_interleave(views)
    positions_BS = begin_B1 + torch.arange(after, device=device)
    mask_BS = (positions_BS < end_B1).long()
    states_BSE = backbone(
        input_ids=input_ids_BL.gather(1, positions_BS.clamp_max(input_ids_BL.shape[1] - 1)),
        attention_mask=torch.cat([mask_BP, mask_BS], dim=1),
        position_ids=positions_BS,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return states_BSE, mask_BS
