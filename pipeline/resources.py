"""What a build needs of this machine, roughly: disk for weights, memory for a network in training."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import Params
from pipeline.settings.backbones import NoBackbone
from pipeline.settings.decoder import Decoder
from pipeline.settings.finetuning import NetworkSettings
from pipeline.settings.member import MemberSettings

BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.1, "nf4": 0.6}
"""Per weight, with the scales of quantised ones."""
KEPT = 2
"""What a stage makes lies in artifacts/ and once more in DVC's cache, which links only where the disk can."""
PLAIN_MEMBER = 20_000_000
"""Bytes of a fold model without a network, at most."""
ADAPTERS = 0.02
"""Weights of adapters, as a share of their base's."""
ADAM = 16.0
"""Bytes per weight in fine-tuning: the weight, its gradient, and two moments, all in fp32."""
PLACE = 2.5e9
"""Bytes of memory for a stage, a network's weights left out: the demo's largest took 2.3 GB."""
CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def model_bytes(member: MemberSettings, about: Mapping[str, Any]) -> float:
    """Returns the size of one fold model; `about` is what is known of its backbone."""
    if not isinstance(member, NetworkSettings):
        return PLAIN_MEMBER
    weights = about.get("parameters", 0)
    return weights * (ADAPTERS * BYTES["fp32"] if isinstance(member, Decoder) else BYTES[member.inference.precision])


def disk_needed(params: Params, facts: Mapping[str, Mapping[str, Any]], data: Path) -> float:
    """Returns about how many bytes a whole build writes; `facts` is what is known of each backbone."""
    tables = sum(file.stat().st_size for file in data.glob("*") if file.is_file())
    needed = float(tables)
    for name, backbone in params.backbones.items():
        about = facts.get(name, {})
        trained = not isinstance(backbone, NoBackbone) and backbone.pretrain.epochs > 0
        # Encoders are written anew in fp32; a decoder's files stay as they are published, in half precision.
        as_it_came = "fp16" if about.get("family") == "decoder" else "fp32"
        needed += about.get("parameters", 0) * (BYTES[as_it_came] + BYTES["fp32"] * trained)
    for member in params.members.values():
        averaged = params.package.average and isinstance(member, NetworkSettings)
        models = len(params.folds.ids if member.folds is None else member.folds) + params.refit + averaged
        needed += models * model_bytes(member, facts.get(member.backbone, {}))
    return KEPT * needed


def memory_needed(member: NetworkSettings, about: Mapping[str, Any]) -> float:
    """Returns about how many bytes one fold model's training holds, activations left out."""
    weights = about.get("parameters", 0)
    if isinstance(member, Decoder):
        return weights * (BYTES[member.inference.precision] + ADAPTERS * ADAM)
    return weights * ADAM


def pretraining_memory(about: Mapping[str, Any]) -> float:
    """Returns about how many bytes a backbone's pretraining holds, activations left out: all weights learn."""
    return float(about.get("parameters") or 0) * ADAM


def devices_asked(params: Params) -> dict[str, int]:
    """Returns on how many devices each network is trained, by the setting that says so."""
    asked = {}
    for name, backbone in params.backbones.items():
        if not isinstance(backbone, NoBackbone) and backbone.pretrain.epochs:
            asked[f"params.yaml: backbones.{name}.pretrain.devices"] = backbone.pretrain.devices
    for name, member in params.members.items():
        if isinstance(member, NetworkSettings):
            section = "students" if name in params.students else "members"
            asked[f"params.yaml: {section}.{name}.training.devices"] = member.devices
    return asked


def free_disk(folder: Path = Path()) -> int:
    """Returns the free bytes where `folder` is."""
    return shutil.disk_usage(folder).free


def memory() -> tuple[str, int]:
    """Returns where networks are trained, "GPU" or "memory", and how many bytes it has."""
    sizes = _card_sizes()
    return ("GPU", sizes[0]) if sizes else ("memory", host_memory())


def cards() -> int:
    """Returns how many GPUs a stage sees here: those of CUDA_VISIBLE_DEVICES, where it is set."""
    count, visible = len(_card_sizes()), os.environ.get("CUDA_VISIBLE_DEVICES")
    return count if visible is None else min(count, sum(each.strip() not in ("", "-1") for each in visible.split(",")))


def _card_sizes() -> list[int]:
    """Returns the bytes of memory of each GPU of this machine."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=False, timeout=10).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [int(each) * 2**20 for each in said if each.isdecimal()]


def host_memory() -> int:
    """Returns the bytes of memory that this machine, or the container, has."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in CGROUPS:  # a container may have less than the machine
        if file.is_file() and (text := file.read_text().strip()).isdecimal():
            limits.append(int(text))
    return min(limits)


def place_memory(params: Params, facts: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns about how many bytes of memory a stage takes, a network's weights included where there is no GPU.

    A fold over several devices takes that in each of its processes.
    """
    on_cards = memory()[0] == "GPU"
    needed = [PLACE]
    for member in params.members.values():
        if isinstance(member, NetworkSettings):
            weights = 0.0 if on_cards else memory_needed(member, facts.get(member.backbone, {}))
            needed.append(member.devices * (PLACE + weights))
    return max(needed)


def places(params: Params, facts: Mapping[str, Mapping[str, Any]]) -> int:
    """Returns how many stages this machine feeds at a time: each has `threads` cores and its memory to itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores // params.threads, int(host_memory() // place_memory(params, facts))))
