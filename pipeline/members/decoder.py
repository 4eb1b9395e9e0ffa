"""Trains one fold of a `decoder` member: LoRA adapters and a head on a frozen, mostly quantised, causal network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from pipeline.data.folds import Split
from pipeline.files import write_json
from pipeline.inference.network_member import FORMAT
from pipeline.inference.open_network import ADAPTER, HEAD
from pipeline.members.context import Run
from pipeline.members.finetune import opened, train_network
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.network import checksum, decoder_network
from pipeline.models.voting import save_voters


def train(split: Split, start: dict[str, Any], folder: Path, run: Run) -> dict[str, Any]:
    """Fine-tunes adapters and head that `start` describes, saves them into `folder`, and returns the run's record."""
    setting = opened(split, start, run)
    settings, competition = setting.settings, setting.competition

    def build() -> nn.Module:
        adapted = adapted_base(setting.base, settings, setting.device.name)
        network = decoder_network(adapted, settings, competition.kind, len(competition.classes))
        return network.to(setting.device.name)

    network: Any
    network, record, voters = train_network(build, split, setting, run.checkpoint)
    network.backbone.save_pretrained(str(folder / ADAPTER))
    head = {name: each.detach().cpu().contiguous() for name, each in network.head.state_dict().items()}
    save_file(head, folder / HEAD)
    save_voters(voters, None, folder)
    about = {"kind": "decoder", "trained": True, "format": FORMAT, "classes": competition.classes}
    about |= {"settings": settings, "backbone": setting.backbone, "head": checksum(head)}
    about["voters"] = len(voters)
    write_json(folder / "member.json", about)
    return record


def adapted_base(folder: Path, settings: dict[str, Any], device: str) -> PeftModel:
    """The base in `folder`, frozen and in the member's precision, with fresh adapters from torch's global generator.

    It is what the kernel will have: an adapter learns to correct the rounding of its own base.
    """
    base = load_backbone(folder, settings["inference"]["precision"], device, settings["training"]["dropout"])
    return with_adapters(base, settings)


def with_adapters(base: Any, settings: dict[str, Any]) -> PeftModel:
    """The same for a base in memory."""
    for each in base.parameters():
        each.requires_grad_(False)
    if settings["training"]["gradient_checkpointing"]:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    lora, rate = settings["lora"], settings["training"]["dropout"]
    dropout = lora["dropout"] if rate is None else rate
    return get_peft_model(
        base,
        LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=dropout, target_modules="all-linear"),
    )
