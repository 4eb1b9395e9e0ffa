"""Whole networks, asked and trained by Podium's own code: tokens per second, share of the card's rate, peak memory.

FLOP per token, as in Kaplan et al. 2020 (arXiv 2001.08361), of what the network needs, not of what is computed twice:
forward 2 per weight of a linear layer; backward twice that, or once where the weight is frozen (LoRA). Attention, per
layer, forward, with n tokens and h hidden units: 4 n h, half of it under a causal mask, and for DeBERTa 4 s h more,
with s = min(2 n - 1, 512) places of distances; backward twice that. Heads, embeddings and norms count as nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.gpu.bench import Bench, Row, fitting, released, rounded, tried
from benchmarks.gpu.llama import random_base
from benchmarks.speed.one_shape import COMPETITION, encoder, random_rows, stepper, write_weights
from pipeline.inference.forward import batch_logits
from pipeline.members.decoder import with_adapters
from pipeline.models.backbones.loading import DTYPES
from pipeline.models.backbones.quantised import QUANTISED, settled
from pipeline.models.network import decoder_network
from pipeline.settings.finetuning import NetworkSettings
from pipeline.training.devices.device import resolve_precision

BATCHES = {"encoder": 4, "decoder": 2}
"""Per step of the optimiser: about as many as the presets' 64 rows make."""
TIMES = 2


class Costs(NamedTuple):
    """FLOP per token."""

    inference: float
    training: float


class Subject(NamedTuple):
    """A network, and how it is described."""

    network: Any
    settings: NetworkSettings
    config: dict[str, Any]
    inference: str
    """The precision it is asked in, and whose rate its share is one of."""
    training: str


def deberta_large(bench: Bench) -> None:
    """The encoder `large` of the card's preset."""
    settings, config = bench.settings("large"), bench.config("deberta-v3-large")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(config, Path(folder), bench.device)
        network = encoder(Path(folder), settings, bench.device)
    inference = settings.inference.precision if bench.on_gpu else "fp32"
    _rows(bench, Subject(network, settings, config, inference, _training(bench)), (False, True))


def llama_bf16(bench: Bench) -> None:
    """Llama-3-8B with LoRA, its base in bf16."""
    llama(bench, "bf16")


def llama_nf4(bench: Bench) -> None:
    """The same with a base of 4 bits."""
    llama(bench, "nf4")


def llama_int8(bench: Bench) -> None:
    """The same with a base of 8 bits."""
    llama(bench, "int8")


def llama(bench: Bench, precision: str) -> None:
    """The decoder `llama` of the card's preset on a base in `precision`."""
    settings, config = bench.settings("qwen"), bench.config("llama-3-8b")
    settings = replace(settings, inference=replace(settings.inference, precision=precision))
    torch.manual_seed(0)
    adapted = with_adapters(random_base(config, precision, bench.device), settings)
    network = decoder_network(adapted, settings, COMPETITION).to(bench.device)
    # Podium's quantised layers compute in fp16 at inference.
    inference = "fp16" if precision in QUANTISED else precision
    again = (False, True) if precision == "bf16" else (True,)  # the goal's row first: time may run out
    _rows(bench, Subject(network, settings, config, inference, _training(bench)), again)


def _training(bench: Bench) -> str:
    return resolve_precision("auto")[0] if bench.on_gpu else "fp32"


def _rows(bench: Bench, subject: Subject, checkpointing: tuple[bool, ...]) -> None:
    """Inference at every length, then training: after training, memory would hold its moments."""
    network, kind = subject.network, subject.settings.kind
    precision = subject.settings.inference.precision if kind == "decoder" else subject.inference
    adapters = [each for name, each in network.named_parameters() if "lora_" in name]
    if kind == "encoder":
        network.to(DTYPES[subject.inference])  # as the kernel has it, and adapters in their base's dtype
    elif bench.on_gpu:
        _put(adapters, network.backbone.get_base_model().dtype)
    for length in bench.by_worth:
        facts = {"what": "inference", "precision": precision, "tokens": length, "checkpointing": "-"}
        tried(bench, facts, partial(_asked, bench, subject, length))
    if kind == "encoder":
        network.float()
    elif bench.on_gpu:
        _put(adapters, torch.float32)  # as they learn
        if precision in QUANTISED:
            settled(network.backbone, bench.training(subject.training).half)
    for again in checkpointing:
        _checkpoint(subject, again)
        for length in bench.by_worth:
            base = subject.training if kind == "encoder" else precision
            facts = {"what": "training", "precision": base, "tokens": length, "checkpointing": "on" if again else "off"}
            tried(bench, facts, partial(_trained, bench, subject, length))
            network.zero_grad(set_to_none=True)
    released()


def _put(weights: list[nn.Parameter], dtype: torch.dtype) -> None:
    for each in weights:
        each.data = each.data.to(dtype)


def _checkpoint(subject: Subject, on: bool) -> None:
    """As pipeline.training does it for the kind."""
    backbone = subject.network.backbone
    if not on:
        backbone.gradient_checkpointing_disable()
    elif subject.settings.kind == "encoder":
        backbone.gradient_checkpointing_enable()
    else:
        backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _asked(bench: Bench, subject: Subject, length: int) -> Row:
    views, network = subject.network.views, subject.network.eval()
    budget = subject.settings.inference.tokens_per_batch

    def attempt(rows: int) -> dict[str, float]:
        encoded = random_rows(rows, views, _asks(subject, length), bench.device, budget).encoded
        return bench.measured(lambda: batch_logits(network, encoded, np.arange(rows), 0, bench.device), TIMES)

    rows, found = fitting(max(1, budget // (views * length)), attempt)
    cost = costs(network.backbone, subject.config, length).inference
    return _told(bench, subject.inference, rows * views * length, cost, found, rows * views)


def _trained(bench: Bench, subject: Subject, length: int) -> Row:
    """A step of the optimiser over several batches."""
    views, network, settings = subject.network.views, subject.network.train(), subject.settings
    device, batches = bench.training(subject.training), BATCHES[settings.kind]
    budget = settings.training.batches.tokens_per_batch

    def attempt(rows: int) -> dict[str, float]:
        network.zero_grad(set_to_none=True)  # of an attempt that failed
        every, per_batch = rows * batches, rows * views * length
        objective = random_rows(every, views, _asks(subject, length), bench.device, per_batch)
        return bench.measured(stepper(network, objective, settings.training, device), TIMES)

    rows, found = fitting(max(1, budget // (views * length)), attempt)
    cost = costs(network.backbone, subject.config, length).training
    return _told(bench, subject.training, batches * rows * views * length, cost, found, rows * views)


def _asks(subject: Subject, length: int) -> dict[str, Any]:
    return {"tokens": length, "config": subject.config}


def _told(bench: Bench, precision: str, tokens: int, cost: float, found: Any, sequences: int) -> Row:
    """The row of a pass over so many tokens, each at `cost`; `precision` is that whose rate its share is one of."""
    rate = tokens / found["seconds"]
    row: Row = {"sequences": sequences, "tokens/s": round(rate), "GB": found["gb"]}
    if precision in bench.rates:
        row["share"] = rounded(rate * cost / (bench.rates[precision] * 1e12))
    return row


def costs(backbone: nn.Module, config: dict[str, Any], length: int) -> Costs:
    """See the module's docstring; `backbone` may hold adapters, and layers that are quantised."""
    linear = [each for each in backbone.modules() if isinstance(each, nn.Linear)]
    sizes = [(each.in_features * each.out_features, each.weight.requires_grad) for each in linear]
    trained, frozen = (sum(size for size, learns in sizes if learns is asked) for asked in (True, False))
    each_layer = 4 * length * config["hidden_size"]
    if config["model_type"] == "llama":
        each_layer //= 2
    else:
        each_layer += 4 * min(2 * length - 1, 2 * config["position_buckets"]) * config["hidden_size"]
    attention = config["num_hidden_layers"] * each_layer
    return Costs(2 * (trained + frozen) + attention, 6 * trained + 4 * frozen + 3 * attention)
