"""Trains one fold of an `encoder` member: all weights of a bidirectional network, and a fresh head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.data.split import Split
from pipeline.errors import PodiumError
from pipeline.members.context import Run, Start
from pipeline.members.finetune import open_run, train_network
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.network import check_custom, encoder_network, network_source
from pipeline.models.saved_network import save_encoder
from pipeline.settings.encoder import Encoder
from pipeline.training.objectives.multitask import with_auxiliary
from pipeline.training.techniques.mixout import mix, unmix


def train(split: Split, start: Start, folder: Path, run: Run) -> dict[str, Any]:
    """Fine-tunes the network that `start` describes, saves it into `folder`, and returns the run's record."""
    settings, competition, outputs = start.settings, start.competition, len(start.competition.outputs)
    assert isinstance(settings, Encoder)
    opened, source = open_run(split, start, settings, run), network_source(settings)

    def build() -> nn.Module:
        backbone = trainable_backbone(opened.base, settings, opened.device.name)
        network = encoder_network(backbone, settings, competition.kind, outputs, source)
        network.to(opened.device.name)
        if source is not None:
            check_custom(network, settings, competition.kind, outputs)
        return with_auxiliary(network, settings, split.auxiliary).to(opened.device.name)

    network, record, voters = train_network(build, split, opened, run.checkpoint)
    unmix(network)
    if opened.device.share.leads:
        save_encoder(network, voters, settings, competition, opened.backbone, source, folder)
    return record


def trainable_backbone(folder: Path, settings: Encoder, device: str) -> Any:
    """Returns the backbone in `folder` in fp32, with the attention, dropout, fresh and frozen parts of `settings`.

    What is fresh comes from torch's global generator.

    Raises: PodiumError for gradient checkpointing where the network does not know it.
    """
    training = settings.training
    backbone: Any = load_backbone(folder, "fp32", device, training.dropout, settings.attention)
    draw_anew(backbone, training.reinit_layers)
    if training.freeze_embeddings:
        backbone.get_input_embeddings().requires_grad_(False)
    if training.mixout:
        mix(backbone, training.mixout.rate)
    if training.gradient_checkpointing:
        if not backbone.supports_gradient_checkpointing:
            raise PodiumError(
                f"training.gradient_checkpointing: {backbone.config.model_type} does not know it: leave it out, and "
                "lower batches.tokens_per_batch where memory runs out"
            )
        backbone.gradient_checkpointing_enable()
    return backbone


@torch.no_grad()
def draw_anew(backbone: Any, layers: int) -> None:
    """Gives the top `layers` layers the weights of a network that was never trained (Zhang et al. 2021).

    What all layers share, DeBERTa's rel_embeddings and encoder.LayerNorm, stays as it is.

    Raises: PodiumError where the backbone has fewer layers.
    """
    lists = (each for name, each in backbone.named_modules() if name.endswith(("layer", "layers", "h", "blocks")))
    stack = next((each for each in lists if isinstance(each, nn.ModuleList)), nn.ModuleList())
    if layers > len(stack):
        raise PodiumError(
            f"training.reinit_layers: expected at most the backbone's {len(stack)} layers, found {layers}"
        )
    for layer in list(stack)[len(stack) - layers :]:
        for module in layer.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0.0, backbone.config.initializer_range)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
