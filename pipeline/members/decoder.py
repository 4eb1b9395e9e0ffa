"""Trains one fold of a `decoder` member: LoRA adapters and a head on a frozen, mostly quantised, causal network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from pipeline.data.prompt import prompt_of
from pipeline.data.split import Split
from pipeline.members.context import Run, Start
from pipeline.members.finetune import open_run, train_network
from pipeline.models.backbones.language_head import language_head
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.network import decoder_network
from pipeline.models.saved_network import save_decoder
from pipeline.settings.decoder import Decoder
from pipeline.training.objectives.multitask import with_auxiliary


def train(split: Split, start: Start, folder: Path, run: Run) -> dict[str, Any]:
    """Fine-tunes adapters and head that `start` describes, saves them into `folder`, and returns the run's record."""
    settings, competition = start.settings, start.competition
    assert isinstance(settings, Decoder)
    opened = open_run(split, start, settings, run)
    rows = None
    if settings.head == "tokens":
        rows = language_head(opened.base, prompt_of(opened.tokenizer, competition).answers)

    def build() -> nn.Module:
        adapted = adapted_base(opened.base, settings, opened.device.name, opened.device.half)
        network = decoder_network(adapted, settings, competition)
        if rows is not None:
            network.head.take(*rows)  # type: ignore[operator]
        return with_auxiliary(network, settings, split.auxiliary).to(opened.device.name)

    network, record, voters = train_network(build, split, opened, run.checkpoint)
    if opened.device.share.leads:
        save_decoder(network, voters, settings, competition, opened.backbone, folder)
    return record


def adapted_base(folder: Path, settings: Decoder, device: str, half: torch.dtype = torch.float16) -> PeftModel:
    """Returns the base in `folder`, frozen and in the member's precision, with fresh adapters from torch's generator.

    It is what the kernel will have: an adapter learns to correct the rounding of its own base. What is quantised has
    the same codes there; what computes with them on a GPU is `half`.
    """
    base = load_backbone(folder, settings.inference.precision, device, settings.training.dropout, half=half)
    return with_adapters(base, settings)


def with_adapters(base: Any, settings: Decoder) -> PeftModel:
    """Returns a base in memory, frozen, with fresh adapters from torch's global generator."""
    for each in base.parameters():
        each.requires_grad_(False)
    if settings.training.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    lora, rate = settings.lora, settings.training.dropout
    dropout, alpha = lora.dropout if rate is None else rate, cast(int, lora.alpha)  # peft divides it by the rank
    return get_peft_model(
        base, LoraConfig(r=lora.rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    )
