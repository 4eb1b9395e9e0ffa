"""A fold model's network on disk: an encoder's own weights, or a decoder's adapters and head; saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError, ran_out
from pipeline.files import read_json, write_json
from pipeline.models.backbones.loading import DTYPES, fresh_backbone
from pipeline.models.network import checksum, decoder_network, encoder_network
from pipeline.models.saved import SavedMember, save_member
from pipeline.models.voting import save_voters, with_voters
from pipeline.settings.decoder import Decoder
from pipeline.settings.encoder import Encoder

ADAPTER, HEAD, WEIGHTS, SOURCE = "adapter", "head.safetensors", "model.safetensors", "network.py"
BROKEN = (OSError, RuntimeError, ValueError, KeyError, SafetensorError)


def save_encoder(
    network: nn.Module,
    voters: list[dict[str, Tensor]],
    settings: Encoder,
    competition: Competition,
    backbone: str,
    source: str | None,
    folder: Path,
) -> None:
    """Writes all weights in the precision of inference.

    `backbone` is the content hash of its backbone, `source` the text of a custom network's file.
    """
    dtype = DTYPES[settings.inference.precision]
    save_model(network.cpu().to(dtype), str(folder / WEIGHTS))
    save_voters(voters, dtype, folder)
    if source is not None:
        (folder / SOURCE).write_text(source, encoding="utf-8")
    save_member(folder, settings, competition, backbone=backbone, voters=len(voters))


def load_encoder(folder: Path, about: SavedMember, base: Path, competition: Competition) -> nn.Module:
    """Returns the network on the CPU, in evaluation mode; `base` holds its backbone's config.

    Raises: PodiumError where the weights do not fit.
    """
    settings, file = about.settings, folder / WEIGHTS
    assert isinstance(settings, Encoder)
    source = (folder / SOURCE).read_text(encoding="utf-8") if settings.network else None
    backbone = fresh_backbone(base, "cpu", settings.attention)
    network = encoder_network(backbone, settings, competition.kind, len(competition.outputs), source)
    network.to(DTYPES[settings.inference.precision])
    try:
        load_model(network, file, strict=True)
    except BROKEN as error:
        if ran_out(error):
            raise
        raise PodiumError(f"{file}: does not fit its network: {' '.join(str(error).split())[:200]}") from error
    return with_voters(network, folder, about.facts["voters"], competition.family).eval()


def save_decoder(
    network: Any,
    voters: list[dict[str, Tensor]],
    settings: Decoder,
    competition: Competition,
    backbone: str,
    folder: Path,
) -> None:
    """Writes adapters and head; the base stays with the backbone, whose content hash is `backbone`."""
    network.backbone.save_pretrained(str(folder / ADAPTER))
    config = folder / ADAPTER / "adapter_config.json"  # peft writes a set in any order, and another one each time
    about = read_json(config)
    write_json(config, about | {"target_modules": sorted(about["target_modules"])})
    head = {name: each.detach().cpu().contiguous() for name, each in network.head.state_dict().items()}
    save_file(head, folder / HEAD)
    save_voters(voters, None, folder)
    save_member(folder, settings, competition, backbone=backbone, head=checksum(head), voters=len(voters))


def load_decoder(
    folder: Path, about: SavedMember, base: Any, competition: Competition, adapters: torch.dtype = torch.float32
) -> tuple[nn.Module, Any]:
    """Returns the network on `base`, a loaded backbone, and the peft model that `unload()` takes off it again.

    `adapters` is what the adapters compute in: on a T4 fp32 has no tensor cores, and would take a tenth of a pass.

    Raises: PodiumError where adapters or head do not fit.
    """
    from peft import PeftModel  # encoders do without

    settings, file = about.settings, folder / HEAD
    assert isinstance(settings, Decoder)
    try:
        adapted = PeftModel.from_pretrained(base, folder / ADAPTER)
        for name, each in adapted.named_parameters():
            if "lora_" in name:
                each.data = each.data.to(adapters)
        tensors = load_file(file)
        network = decoder_network(adapted, settings, competition)
        network.head.load_state_dict(tensors)
    except BROKEN as error:
        if ran_out(error):
            raise
        line = " ".join(str(error).split())[:200]
        raise PodiumError(f"{folder}: the adapter does not fit its base: {line}") from error
    if checksum(tensors) != about.facts["head"]:
        raise PodiumError(f"{file}: not the head that belongs to this adapter")
    return with_voters(network, folder, about.facts["voters"], competition.family).eval(), adapted
