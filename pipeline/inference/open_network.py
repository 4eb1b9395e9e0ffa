"""A fold model's network from its files: an encoder's own weights, or a decoder's adapters on a base of all folds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch import nn

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.models.backbones.loading import DTYPES, fresh_backbone, load_backbone
from pipeline.models.network import checksum, decoder_network, encoder_network
from pipeline.models.voting import with_voters

ADAPTER, HEAD, WEIGHTS, SOURCE = "adapter", "head.safetensors", "model.safetensors", "network.py"

_opening = threading.Lock()
"""Loading switches torch's defaults for a moment; two networks at a time would see each other's."""


@dataclass(frozen=True)
class Opened:
    """A network on a device, and what to call when it is no longer needed."""

    network: nn.Module
    device: str
    close: Callable[[], None]


def open_network(folder: Path, about: dict[str, Any], base: Path, competition: Competition, device: str) -> Opened:
    """The network in `folder`, which member.json tells `about`, on the backbone in `base`.

    Raises: PodiumError where files do not belong together, or the device's memory is too small.
    """
    opened = _encoder if about["settings"]["kind"] == "encoder" else _decoder
    try:
        with _opening:
            return opened(folder, about, base, competition, device)
    except torch.OutOfMemoryError as error:
        raise PodiumError(f"{folder}: out of memory on {device}, which the network alone fills") from error


def _encoder(folder: Path, about: dict[str, Any], base: Path, competition: Competition, device: str) -> Opened:
    settings, file = about["settings"], folder / WEIGHTS
    source = (folder / SOURCE).read_text(encoding="utf-8") if settings["network"] else None
    backbone = fresh_backbone(base, "cpu", settings["attention"])
    network = encoder_network(backbone, settings, competition.kind, len(competition.classes), source)
    network.to(DTYPES[settings["inference"]["precision"]])
    try:
        load_model(network, file, strict=True)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise PodiumError(f"{file}: does not fit its network: {' '.join(str(error).split())[:200]}") from error
    network = with_voters(network, folder, about.get("voters", 0))
    return Opened(network.eval().to(device), device, lambda: None)


_idle: dict[tuple[Path, str, str, str], list[nn.Module]] = {}
"""Bases without an adapter, by folder, content hash, precision and device: the next fold need not load one again."""
_idle_lock = threading.Lock()


def _borrowed(key: tuple[Path, str, str, str]) -> nn.Module:
    """A base that nobody else uses until it stands in `_idle` again; one that never comes back is forgotten."""
    base, _, precision, device = key
    with _idle_lock:
        for other in [each for each in _idle if each[3] == device and each != key]:
            del _idle[other]
        if _idle.get(key):
            return _idle[key].pop()
    return load_backbone(base, precision, device)


def _decoder(folder: Path, about: dict[str, Any], base: Path, competition: Competition, device: str) -> Opened:
    from peft import PeftModel  # encoders do without

    precision, file = about["settings"]["inference"]["precision"], folder / HEAD
    key = (base, about["backbone"], precision, device)
    backbone: Any = _borrowed(key)
    try:
        adapted = PeftModel.from_pretrained(backbone, folder / ADAPTER)
        tensors = load_file(file)
        network = decoder_network(adapted, about["settings"], competition.kind, len(competition.classes))
        network.head.load_state_dict(tensors)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise PodiumError(f"{folder}: the adapter does not fit the base {base}: {line}") from error
    if checksum(tensors) != about["head"]:
        raise PodiumError(f"{file}: not the head that belongs to this adapter")

    def close() -> None:
        adapted.unload()
        with _idle_lock:
            _idle.setdefault(key, []).append(backbone)

    answering = with_voters(network, folder, about.get("voters", 0))
    return Opened(answering.eval().to(device), device, close)
