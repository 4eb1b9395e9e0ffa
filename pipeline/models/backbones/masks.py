"""transformers' own attention on a GPU, for rows that are padded on the right: masks without a question to the GPU.

In a causal network no token sees padding that stands behind it. A mask of it changes no answer, but costs the fast
kernels, (rows, 1, tokens, tokens) of memory, and, as transformers makes it, a wait for the GPU in each pass. Without
one transformers leaves grouped keys and values to the kernel, and before compute capability 8.0 (T4) the only kernel
that takes them is the plain one, which holds all scores: there they are repeated.

A CPU keeps transformers' way: the answers are the same to the last bit, but not the gradients of grouped heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

RIGHT_PADDED = "podium_right_padded"
"""Its name among transformers' implementations of attention."""
GROUPED = (8, 0)
"""The compute capability from which on a fast kernel takes fewer heads of keys than of queries."""


def use_right_padding(network: Any) -> None:
    """Switches a network to this attention, in place, where it attends by PyTorch's own function.

    One that cannot (Gemma 2 caps its scores, DeBERTa has ours) stays as it is.
    """
    if network.config._attn_implementation == "sdpa":
        network.set_attn_implementation(RIGHT_PADDED)


def mask(**asked: Any) -> Tensor | None:
    """Returns transformers' mask of the same arguments: of a causal network without the padding.

    That is None, but for a sliding window that is shorter than the rows. Where tokens look ahead the padding is always
    masked: whether there is any, the GPU would have to say. So it is where rows go on from a common beginning
    (shared_prefix.py), whose padding stands before them.
    """
    if asked["q_length"] != asked["kv_length"]:
        behind: Tensor | None = sdpa_mask(**asked | {"allow_is_causal_skip": False})
        return behind
    causal = not asked.get("allow_is_bidirectional_skip", False)
    changed = {"attention_mask": None} if causal else {"allow_is_bidirectional_skip": False}
    found: Tensor | None = sdpa_mask(**asked | changed)
    return found


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Returns what transformers' function of the same arguments returns: (rows, tokens, heads, width), and None."""
    groups = query.shape[1] // key.shape[1]
    if attention_mask is not None or groups == 1 or takes_groups(query.device):
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    dropout, scale = options.get("dropout", 0.0), options.get("scaling")
    context = scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale, is_causal=True)
    return context.transpose(1, 2).contiguous(), None


def takes_groups(device: torch.device) -> bool:
    """Returns whether a fast kernel of the device takes fewer heads of keys than of queries."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= GROUPED


AttentionInterface.register(RIGHT_PADDED, attention)
AttentionMaskInterface.register(RIGHT_PADDED, mask)
