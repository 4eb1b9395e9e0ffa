"""A network, the rows that it learns, and what one step does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import decoder, encoder
from support import preference_rows
from torch import Tensor, nn

from pipeline.competitions.task import Competition
from pipeline.inference.network_member import encoded_rows
from pipeline.members.decoder import adapted_base
from pipeline.members.encoder import trainable_backbone
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import decoder_network, encoder_network
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device
from pipeline.training.gradients import Learner, gradients
from pipeline.training.loop import Trained, TrainingRun, fit
from pipeline.training.objectives.supervised import Supervised

CPU = Device("cpu", "fp32")


def learner_of(
    backbones: Path,
    competition: Competition,
    kind: str,
    budget: int,
    rows: int,
    training: dict[str, Any],
    precision: str = "fp32",
) -> Learner:
    """An encoder or a decoder member with these training settings, and rows that it learns eight at a time."""
    asked = encoder(training) if kind == "encoder" else decoder(training, precision, lora={"rank": 4})
    folder = backbones / "backbones" / ("bert" if kind == "encoder" else "llama")
    torch.manual_seed(0)
    if kind == "encoder":
        network = encoder_network(trainable_backbone(folder, asked, "cpu"), asked, competition.kind, 3, None)
    else:
        network = decoder_network(adapted_base(folder, asked, "cpu"), asked, competition)
    chosen, tokenizer = preference_rows(rows), load_tokenizer(folder)
    labels = chosen["label"].to_numpy().astype(np.int64)
    encoded = encoded_rows(chosen, asked, tokenizer, competition)
    learned = Supervised(encoded, labels, competition.family, tokenizer.pad_token_id, "cpu", 8, budget, 0.0, 0)
    return Learner(network.train(), learned, asked.training, CPU, CPU.scaler())


def grads(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def step_of(learner: Learner) -> dict[str, Tensor]:
    learner.network.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    gradients(learner, learner.objective.epoch(0)[0], 0, 0.5)
    return grads(learner.network)


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one | other)


def fitted(learner: Learner, folder: Path, device: Device = CPU) -> Trained:
    """The loop's whole run, with its checkpoint in `folder`."""
    return fit(TrainingRun(learner.network, learner.objective, learner.settings, device, Checkpoint(folder), "x"))
