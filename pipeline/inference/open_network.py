"""A fold model's network on a device. A decoder's base is loaded once and passed from fold to fold."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, ran_out
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.saved import SavedMember
from pipeline.models.saved_network import load_decoder, load_encoder
from pipeline.settings.finetuning import NetworkSettings

_opening = threading.Lock()
"""Loading switches torch's defaults for a moment; two networks at a time would see each other's."""


@dataclass(frozen=True)
class Opened:
    """A network on a device, and what to call when it is no longer needed."""

    network: nn.Module
    device: str
    close: Callable[[], None]


def open_network(folder: Path, about: SavedMember, base: Path, competition: Competition, device: str) -> Opened:
    """Returns the network in `folder`, which member.json tells `about`, on the backbone in `base`.

    Raises: PodiumError where files do not belong together, or the device's memory is too small.
    """
    opened = _on_a_shared_base if about.kind.shared_base else _on_its_own
    try:
        with _opening:
            return opened(folder, about, base, competition, device)
    except Exception as error:
        if not ran_out(error):
            raise
        raise PodiumError(f"{folder}: out of memory on {device}, which the network alone fills") from error


def _on_its_own(folder: Path, about: SavedMember, base: Path, competition: Competition, device: str) -> Opened:
    _give_up_idle(device, None)
    network = load_encoder(folder, about, base, competition)
    return Opened(network.to(device), device, lambda: None)


_idle: dict[tuple[Path, str, str, str], list[nn.Module]] = {}
"""Bases without an adapter, by folder, content hash, precision and device: the next fold need not load one again."""
_idle_lock = threading.Lock()


def _give_up_idle(device: str, but: tuple[Path, str, str, str] | None) -> None:
    """Forgets all idle bases on a device, but for one: the network that is opened next needs the memory."""
    with _idle_lock:
        others = [each for each in _idle if each[3] == device and each != but]
        for other in others:
            del _idle[other]
    if others:
        gc.collect()  # bitsandbytes' 4-bit weights and their layers hold each other


def _borrowed(key: tuple[Path, str, str, str]) -> Any:
    """Returns a base that nobody else uses until it stands in `_idle` again; one that never comes back is forgotten."""
    base, _, precision, device = key
    _give_up_idle(device, key)
    with _idle_lock:
        if _idle.get(key):
            return _idle[key].pop()
    return load_backbone(base, precision, device)


def _on_a_shared_base(folder: Path, about: SavedMember, base: Path, competition: Competition, device: str) -> Opened:
    assert isinstance(about.settings, NetworkSettings)
    key = (base, about.facts["backbone"], about.settings.inference.precision, device)
    backbone = _borrowed(key)
    adapters = torch.float32 if device == "cpu" else backbone.dtype
    network, adapted = load_decoder(folder, about, backbone, competition, adapters)

    def close() -> None:
        adapted.unload()
        with _idle_lock:
            _idle.setdefault(key, []).append(backbone)

    return Opened(network.to(device), device, close)
