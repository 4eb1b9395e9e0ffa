"""The network of an encoder or decoder member: a backbone, pooling and a head; or one of the user's own.

Shape suffixes: R rows, V views of a row, B sequences of a batch (R * V), L tokens of a sequence, E hidden width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.competitions.task import Competition, Task
from pipeline.data.prompt import question_count
from pipeline.data.text import views_of
from pipeline.errors import PodiumError
from pipeline.models.heads import AnswerHead, ChoiceHead, Ends, EquivariantHead, PlainHead, Pooling, SymmetricHead
from pipeline.models.shared_prefix import last_states, whole_states
from pipeline.settings.decoder import Decoder
from pipeline.settings.encoder import BUILD, Encoder


class Network(nn.Module):
    """The network from token ids to logits."""

    shares: tuple[bool, bool] = (False, False)
    """Whether the common beginning of a row's views is computed once: in evaluation, and in training."""

    def __init__(self, backbone: nn.Module, pooling: Pooling, head: nn.Module, views: int) -> None:
        super().__init__()
        self.backbone, self.pooling, self.head, self.views = backbone, pooling, head, views

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns (rows, outputs) float32 logits of ids and mask, both (B, L), a row's views one after the other."""
        states_of = last_states if self.shares[self.training] else whole_states
        states_BLE, attention_mask = states_of(self.backbone, input_ids, attention_mask)
        pooled_BE = self.pooling(states_BLE, attention_mask).to(_dtype(self.head))
        pooled_RVE = pooled_BE.view(-1, self.views, pooled_BE.shape[-1])
        return self.head(pooled_RVE).float()


def encoder_network(backbone: Any, settings: Encoder, task: Task, outputs: int, source: str | None) -> nn.Module:
    """Returns the network that an encoder member's settings describe; fresh weights come from torch's global generator.

    `source` is the text of the custom network's file, where `settings.network` names one.

    Raises: PodiumError where that file does not do what it must, or the head does not fit the task.
    """
    if source is not None:
        return _custom(backbone, source, settings.network or "", task, outputs)
    return network_on(backbone, settings, task, outputs)


def decoder_network(adapted: Any, settings: Decoder, competition: Competition) -> Network:
    """Returns the network that a decoder member's settings describe, on a base with adapters.

    A head of answer tokens is still without the language head's rows (AnswerHead.take).

    Raises: PodiumError where the head does not fit the task.
    """
    if settings.head == "tokens":
        hidden, cap = int(adapted.config.hidden_size), getattr(adapted.config, "final_logit_softcapping", None)
        views = len(views_of(competition.kind, siamese=False)) * question_count(competition)
        network = Network(adapted, Pooling("last", hidden), AnswerHead(hidden, competition, cap), views)
    else:
        network = network_on(adapted, settings, competition.kind, len(competition.outputs))
    if settings.pooling == "last":
        training = settings.training
        # What moves embedded words, or computes states anew, expects one pass over whole sequences.
        network.shares = True, not (training.fgm or training.smart or training.gradient_checkpointing)
    return network


@torch.no_grad()
def start_at(network: nn.Module, eta: np.ndarray, inputs: tuple[Tensor, ...]) -> None:
    """Lets a fresh network begin with the logits `eta` (outputs,) for every row, on average over those of `inputs`.

    Its last weights stay as they are, and its loss is that of the prior but for what they tell rows apart: weights made
    small begin closer, but then gradients do not reach the network below, and adapters learned nothing. No random
    number is drawn. A network of the user's own begins so if the last linear layer that it has above the backbone gives
    the logits.
    """
    given: dict[nn.Linear, list[Tensor]] = {}
    ends = _ends(network, torch.from_numpy(eta).float())
    hooks = [
        layer.register_forward_hook(lambda layer, _, found: given.setdefault(layer, []).append(found.float()))
        for layer, _ in ends
    ]
    network.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    for layer, wanted in ends:
        if layer.bias is None or layer not in given:
            continue
        found = torch.cat(given[layer]).flatten(0, -2)
        if found.isfinite().all():
            layer.bias.add_(wanted.to(found.device) - found.mean(dim=0))


def _ends(network: nn.Module, eta: Tensor) -> Ends:
    """Returns the last layers of a network, and what they should give on average."""
    if isinstance(network, Network):
        return network.head.ends(eta)  # type: ignore[operator]
    backbones = {each for model in network.modules() if isinstance(model, PreTrainedModel) for each in model.modules()}
    layers = [each for each in network.modules() if isinstance(each, nn.Linear) and each not in backbones]
    return [(layers[-1], eta)] if layers and layers[-1].out_features == len(eta) else []


def network_on(backbone: Any, settings: Encoder | Decoder, task: Task, outputs: int) -> Network:
    """Returns a backbone with fresh pooling and head."""
    hidden = int(backbone.config.hidden_size)
    views = len(views_of(task, settings.input == "siamese"))
    head = _head(hidden, settings, task, outputs, views)
    return Network(backbone, Pooling(settings.pooling, hidden), head, views)


def _head(hidden: int, settings: Encoder | Decoder, task: Task, outputs: int, views: int) -> nn.Module:
    if task.options:
        return ChoiceHead(hidden)
    if settings.head == "plain" or task.mirror is None:  # where nothing may change places, every head is equivariant
        return PlainHead(hidden, outputs, views)
    if task.mirror == tuple(range(outputs)):
        return SymmetricHead(hidden, outputs, views)
    return EquivariantHead(hidden, task, outputs)


def check_custom(network: nn.Module, settings: Encoder, task: Task, outputs: int) -> None:
    """Asks a custom network about two rows before it is trained.

    Raises: PodiumError where it fails, or does not answer with one logit per row and output.
    """
    views = len(views_of(task, settings.input == "siamese"))
    ids = torch.ones(2 * views, 8, dtype=torch.long, device=next(network.parameters()).device)
    try:
        with torch.no_grad():
            found = tuple(network.eval()(ids, torch.ones_like(ids)).shape)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise PodiumError(f"{settings.network}: its forward(input_ids, attention_mask) failed: {line}") from error
    if found != (2, outputs):
        raise PodiumError(
            f"{settings.network}: expected (rows, {outputs}) logits, found {found} for 2 rows of {views} sequences"
        )


def checksum(tensors: dict[str, Tensor]) -> str:
    """Returns hex SHA-256 over names and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _custom(backbone: nn.Module, source: str, name: str, task: Task, outputs: int) -> nn.Module:
    scope: dict[str, Any] = {}
    try:
        exec(compile(source, name, "exec"), scope)
        if BUILD not in scope:
            raise PodiumError(f"{name}: expected a function {BUILD}(backbone, task, classes), found none")
        build: Callable[..., nn.Module] = scope[BUILD]
        network = build(backbone, task, outputs)
    except PodiumError:
        raise
    except Exception as error:
        raise PodiumError(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(network, nn.Module):
        raise PodiumError(f"{name}: expected {BUILD} to return a torch.nn.Module, found {type(network).__name__}")
    return network


def network_source(settings: Encoder) -> str | None:
    """Returns the text of a custom network's file, or None where the settings name none."""
    return Path(settings.network).read_text(encoding="utf-8") if settings.network else None


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
