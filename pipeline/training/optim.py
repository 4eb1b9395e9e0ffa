"""AdamW: every trainable parameter once, with its own share of the learning rate; the rate over time; and one step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.settings.finetuning import Training
from pipeline.settings.optimisation import RateSchedule

LAYER = re.compile(r"\.(?:layer|layers|h|blocks)\.(\d+)\.")


def parameter_groups(network: nn.Module, settings: Training) -> list[dict[str, Any]]:
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
    head = settings.head_rate / settings.schedule.rate if settings.head_rate else 1.0
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, each in trainable.items():
        scale = head
        if name.startswith(backbone):
            scale = layer_scale(_distance(name, layers), layers, settings)
        decay = settings.weight_decay if each.ndim >= 2 else 0.0
        group = groups.setdefault((scale, decay), {"params": [], "scale": scale, "weight_decay": decay})
        group["params"].append(each)
    return list(groups.values())


def backbone_name(network: nn.Module) -> str:
    """Returns where the backbone stands in `network`."""
    models = (name for name, each in network.named_modules() if isinstance(each, PreTrainedModel))
    return next(models, "backbone")


def bottom_and_head(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the trainable parameters of the lowest layer that has any, and those above the backbone."""
    backbone, layers = f"{backbone_name(network)}.", dict[int, list[nn.Parameter]]()
    trainable = {name: each for name, each in network.named_parameters() if each.requires_grad}
    for name, each in trainable.items():
        if name.startswith(backbone) and (found := LAYER.search(name)):
            layers.setdefault(int(found[1]), []).append(each)
    head = [each for name, each in trainable.items() if not name.startswith(backbone)]
    return layers[min(layers)] if layers else [], head


def layer_scale(distance: int, layers: int, settings: Training) -> float:
    """Returns a layer's share of the rate, `distance` below the top (0) of `layers` layers and the embeddings.

    `layer_decay` to that power; or from `layer_floor` at the embeddings up to 1 along a cosine (the form is ours: its
    author gave none).
    """
    floor = settings.layer_floor
    if floor < 1:
        return floor + (1 - floor) * (1 - math.cos(math.pi * (1 - distance / max(layers, 1)))) / 2
    return settings.layer_decay**distance


def _distance(name: str, layers: int) -> int:
    """Returns how many layers a parameter of the backbone lies below the top one."""
    found = LAYER.search(name)
    if found:
        return layers - 1 - int(found[1])
    if "word_embeddings" in name or "embed_tokens" in name or ".embeddings." in name:
        return layers
    # DeBERTa's shared tables lie beside all layers, a last norm after them.
    return max(layers - 1, 0) if "rel_embeddings" in name or "encoder.LayerNorm" in name else 0


def rate_at(step: int, total: int, steps_per_epoch: float, schedule: RateSchedule) -> float:
    """Returns the learning rate at optimiser step `step` (0 to total - 1)."""
    peak, warmup = schedule.rate, math.ceil(schedule.warmup * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.decay == "none":
        return peak
    if schedule.decay == "exponential":
        return peak * schedule.decay_per_epoch ** ((step - warmup) / steps_per_epoch)
    gone = (step - warmup) / max(total - warmup, 1)
    return peak * (1 - gone) if schedule.decay == "linear" else peak * (1 + math.cos(math.pi * gone)) / 2


def adamw(network: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Returns AdamW with bias correction (Loshchilov & Hutter 2019); `step` sets each group's rate.

    With `optimizer_bits` 8 its moments are kept in blocks of 8 bits (Dettmers et al. 2022, arXiv 2110.02861), but for
    those of embeddings and of small tensors.
    """
    groups = parameter_groups(network, settings)
    usual: dict[str, Any] = {"lr": 0.0, "betas": (0.9, 0.999), "eps": 1.0e-6}
    if settings.optimizer_bits == 32:
        return torch.optim.AdamW(groups, **usual, fused=True)
    from bitsandbytes.optim import AdamW8bit, GlobalOptimManager

    exceptions = GlobalOptimManager.get_instance()
    exceptions.initialize()  # it outlives every optimiser, and would take another network's weights for these
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            # Not register_module_override, which would keep the embeddings of all discarded networks.
            exceptions.override_config(module.weight, "optim_bits", 32)
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, **usual)
    return optimizer


class Stepped(NamedTuple):
    """What one step of the optimiser met, where it was computed: a GPU may still be at it."""

    overflow: Tensor | None
    """(1,) above 0 where an fp16 overflow cost the step and the weights are as they were; None without a scaler."""
    scale: Tensor | None
    """(1,) the fp16 scaler's, after the step; None without one."""
    norms: Tensor | None
    """(groups,) norm of the gradients of each watched group, before the clip; not finite where a gradient is not."""


def step(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    weights: Iterable[Tensor],
    rate: float,
    clip: float,
    watched: Iterable[list[nn.Parameter]] = (),
) -> Stepped:
    """Moves the weights once along their gradients, which are then gone.

    `rate` is the schedule's, of which each group takes its share; gradients longer than `clip` are cut to it.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    scaler.unscale_(optimizer)
    norms = [gradient_norm(group, optimizer.param_groups[0]["params"][0].device) for group in watched]
    nn.utils.clip_grad_norm_(weights, clip)
    overflow = scale = None
    if scaler.is_enabled():
        # Both as tensors: the scaler's public answers would make the host wait for each.
        overflow = sum(each.clone() for each in scaler._found_inf_per_device(optimizer).values())
    scaler.step(optimizer)
    scaler.update()
    if scaler.is_enabled():
        scale = scaler._get_scale_async()
    optimizer.zero_grad(set_to_none=True)
    return Stepped(overflow, scale, torch.stack(norms) if norms else None)


def gradient_norm(parameters: list[nn.Parameter], device: torch.device) -> Tensor:
    """Returns () the norm of all their gradients together; 0 where there is none."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    return nn.utils.get_total_norm(gradients) if gradients else torch.zeros((), device=device)
