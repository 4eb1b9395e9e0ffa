"""What AdamW gets: every trainable parameter once, with its own share of the learning rate; and the rate over time."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

LAYER = re.compile(r"\.(?:layer|layers|h|blocks)\.(\d+)\.")


def parameter_groups(network: nn.Module, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups for AdamW; each holds `scale`, its share of the schedule's rate, and its `weight_decay`.

    In the backbone, wherever it stands in `network`, a layer's scale falls with its distance from the top, and
    embeddings lie below the first layer. What layers share (DeBERTa's rel_embeddings and encoder.LayerNorm) takes the
    first layer's. Everything else is head, with `head_rate` where it is given. Biases and norms are not decayed (Devlin
    et al. 2019).
    """
    backbone = f"{backbone_name(network)}."
    trainable = {name: each for name, each in network.named_parameters() if each.requires_grad}
    numbers = [int(found[1]) for name in trainable if name.startswith(backbone) and (found := LAYER.search(name))]
    layers = max(numbers, default=-1) + 1
    head = settings["head_rate"] / settings["schedule"]["rate"] if settings.get("head_rate") else 1.0
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, each in trainable.items():
        scale = head
        if name.startswith(backbone):
            scale = layer_scale(_distance(name, layers), layers, settings)
        decay = settings["weight_decay"] if each.ndim >= 2 else 0.0
        group = groups.setdefault((scale, decay), {"params": [], "scale": scale, "weight_decay": decay})
        group["params"].append(each)
    return list(groups.values())


def backbone_name(network: nn.Module) -> str:
    """Where the backbone stands in `network`."""
    models = (name for name, each in network.named_modules() if isinstance(each, PreTrainedModel))
    return next(models, "backbone")


def bottom_and_head(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of the lowest layer that has any, and those above the backbone."""
    backbone, layers = f"{backbone_name(network)}.", dict[int, list[nn.Parameter]]()
    trainable = {name: each for name, each in network.named_parameters() if each.requires_grad}
    for name, each in trainable.items():
        if name.startswith(backbone) and (found := LAYER.search(name)):
            layers.setdefault(int(found[1]), []).append(each)
    head = [each for name, each in trainable.items() if not name.startswith(backbone)]
    return layers[min(layers)] if layers else [], head


def layer_scale(distance: int, layers: int, settings: dict[str, Any]) -> float:
    """A layer's share of the rate, `distance` below the top (0) of `layers` layers and the embeddings (`layers`).

    `layer_decay` to that power; or from `layer_floor` at the embeddings up to 1 along a cosine (the form is ours: its
    author gave none).
    """
    floor = float(settings.get("layer_floor", 1.0))
    if floor < 1:
        return floor + (1 - floor) * (1 - math.cos(math.pi * (1 - distance / max(layers, 1)))) / 2
    return float(settings.get("layer_decay", 1.0)) ** distance


def _distance(name: str, layers: int) -> int:
    """Of a backbone's parameter from the top layer."""
    found = LAYER.search(name)
    if found:
        return layers - 1 - int(found[1])
    if "word_embeddings" in name or "embed_tokens" in name or ".embeddings." in name:
        return layers
    # DeBERTa's shared tables lie beside all layers, a last norm after them.
    return max(layers - 1, 0) if "rel_embeddings" in name or "encoder.LayerNorm" in name else 0


def rate_at(step: int, total: int, steps_per_epoch: int, schedule: dict[str, Any]) -> float:
    """The peak rate's share times the peak at optimiser step `step` (0 to total - 1)."""
    peak, warmup = float(schedule["rate"]), math.ceil(schedule["warmup"] * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule["decay"] == "none":
        return peak
    if schedule["decay"] == "exponential":
        return peak * float(schedule["decay_per_epoch"]) ** ((step - warmup) / steps_per_epoch)
    gone = (step - warmup) / max(total - warmup, 1)
    return peak * (1 - gone) if schedule["decay"] == "linear" else peak * (1 + math.cos(math.pi * gone)) / 2


def adamw(network: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW with bias correction (Loshchilov & Hutter 2019); the loop sets each group's rate.

    With `optimizer_bits` 8 its moments are kept in blocks of 8 bits (Dettmers et al. 2022, arXiv 2110.02861), but for
    those of embeddings and of small tensors.
    """
    groups = parameter_groups(network, settings)
    usual: dict[str, Any] = {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1.0e-6}
    if settings.get("optimizer_bits", 32) == 32:
        return torch.optim.AdamW(groups, **usual, fused=True)
    from bitsandbytes.optim import AdamW8bit, GlobalOptimManager

    for module in network.modules():
        if isinstance(module, nn.Embedding):
            GlobalOptimManager.get_instance().register_module_override(module, "weight", {"optim_bits": 32})
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, **usual)
    return optimizer
