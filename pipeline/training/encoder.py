"""Trains one fold of an `encoder` member: all weights of a bidirectional network, and a fresh head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_model

from pipeline.data.folds import Split
from pipeline.files import write_json
from pipeline.inference.networks import SOURCE, WEIGHTS
from pipeline.inference.neural import FORMAT
from pipeline.models.loading import DTYPES, load_backbone
from pipeline.models.network import check_custom, encoder_network, network_source
from pipeline.training.neural import opened, train_network
from pipeline.training.run import Run


def train(split: Split, start: dict[str, Any], folder: Path, run: Run) -> dict[str, Any]:
    """Fine-tunes the network that `start` describes, saves it into `folder`, and returns the run's record."""
    setting = opened(split, start, run)
    settings, competition = setting.settings, setting.competition
    source = network_source(settings)
    backbone = trainable_backbone(setting.base, settings, setting.device.name)
    network = encoder_network(backbone, settings, competition.kind, len(competition.classes), source)
    network.to(setting.device.name)
    if source is not None:
        check_custom(network, settings, competition.kind, len(competition.classes))
    record = train_network(network, split, setting, run.checkpoint)
    save_model(network.cpu().to(DTYPES[setting.precision]), str(folder / WEIGHTS))
    if source is not None:
        (folder / SOURCE).write_text(source, encoding="utf-8")
    about = {"kind": "encoder", "trained": True, "format": FORMAT, "classes": competition.classes}
    write_json(folder / "member.json", about | {"settings": settings, "backbone": setting.backbone})
    return record


def trainable_backbone(folder: Path, settings: dict[str, Any], device: str) -> Any:
    """The backbone in `folder` in fp32, with the attention and the dropout that a member's `settings` ask for."""
    backbone: Any = load_backbone(folder, "fp32", device, settings["training"]["dropout"], settings["attention"])
    if settings["training"]["gradient_checkpointing"]:
        backbone.gradient_checkpointing_enable()
    return backbone
