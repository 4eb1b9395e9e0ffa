"""What gradient checkpointing leaves in memory over a base of 8 bits, beside one of 4 bits.

bitsandbytes 0.50 keeps the input of every 8-bit layer where checkpointing cannot drop it; Podium lets go of it
(pipeline/models/backbones/quantised.py). A CPU tells no such figures.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.bench import Bench, Row, rounded, tried
from benchmarks.gpu.llama import random_base
from benchmarks.speed.one_shape import COMPETITION
from pipeline.members.decoder import with_adapters
from pipeline.models.backbones.quantised import QUANTISED, settled
from pipeline.models.network import decoder_network
from pipeline.training.devices.device import resolve_precision

LAYERS, TOKENS = 8, 8192
LEFT = "GB left by forward"


def checkpointing(bench: Bench) -> None:
    """A row for each base, with checkpointing and without: GB that the forward pass leaves, and at most, of a step."""
    for again in ("on", "off"):
        for precision in QUANTISED:
            facts = {"base": precision, "checkpointing": again}
            tried(bench, facts, partial(_step, bench, precision, again == "on"))
        left = {row["base"]: row[LEFT] for row in bench.rows[-2:] if LEFT in row}
        if len(left) == len(QUANTISED):
            ratio = rounded(left["int8"] / left["nf4"])
            tried(bench, {"base": "both", "checkpointing": again}, lambda ratio=ratio: {"int8 of nf4": ratio})


def _step(bench: Bench, precision: str, again: bool) -> Row:
    settings, config = bench.settings("qwen"), bench.config("llama-3-8b")
    config |= {"num_hidden_layers": 2 if bench.tiny else LAYERS}
    settings = replace(settings, training=replace(settings.training, gradient_checkpointing=again))
    device = bench.training(resolve_precision("auto")[0] if bench.on_gpu else "bf16")
    torch.manual_seed(0)
    base = random_base(config, precision, bench.device)
    if bench.on_gpu:
        settled(base, device.half)
    network = decoder_network(with_adapters(base, settings), settings, COMPETITION).to(bench.device).train()
    length = bench.by_worth[0]
    ids = torch.randint(4, config["vocab_size"], (max(1, (128 if bench.tiny else TOKENS) // length), length))
    ids = ids.to(bench.device)
    before = _allocated(bench)
    if bench.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with device.forward():
        loss = network(ids, torch.ones_like(ids)).logsumexp(dim=1).sum()
    left = _allocated(bench) - before
    loss.backward()
    about = {"layers": config["num_hidden_layers"], "tokens": ids.numel()}
    if not bench.on_gpu:
        return about
    peak = torch.cuda.max_memory_allocated() / 1e9
    return about | {LEFT: rounded(left), "GB at most": rounded(peak)}


def _allocated(bench: Bench) -> float:
    """GB of all tensors on the GPU."""
    return torch.cuda.memory_allocated() / 1e9 if bench.on_gpu else 0.0
