"""Our attention's answers and gradients against transformers' on this device, in the whole of deberta-v3-large."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.gpu.bench import HALVES, Bench, Row, rounded, tried
from benchmarks.speed.attention import attention_call, embedded
from benchmarks.speed.networks import deberta
from benchmarks.speed.one_shape import encoder, write_weights
from pipeline.data.batches import pad
from pipeline.models.backbones.loading import DTYPES
from pipeline.models.deberta.disentangled import use_fast_attention

LOGITS, GRADIENTS = 1e-5, 1e-4
"""Largest difference in fp32: of the logits, relative to their norm; of a parameter's gradient, to the norm of all."""
NO_WORSE = 1.2
"""In half precision: our distance from the exact answer of fp32, in those of transformers."""
DEVIATIONS = 6.0
"""Standard errors that a mean over draws of dropout may lie from the answer without, the largest of all values."""
SCALE = 1024.0
"""Of the loss in half precision, whose gradients would else vanish in fp16."""


class Inputs(NamedTuple):
    ids: Tensor
    mask: Tensor
    labels: Tensor


def parity(bench: Bench) -> None:
    """A row for each check: what was found, the limit, and whether it was kept."""
    config = bench.config("deberta-v3-large")
    pair = _networks(bench, config)
    width = 29 if bench.tiny else 509  # no multiple of 8: GPUs' kernels have a way of their own for those
    right = _inputs(bench, config["vocab_size"], [width, 3 * width // 4, width // 8, 1])
    # Mean pooling reads no place in particular: rows turned round are rows with padding on the left.
    left = Inputs(right.ids.flip(1), right.mask.flip(1), right.labels)
    for side, inputs in (("right", right), ("left", left)):
        facts = {"check": "fp32 logits and gradients", "padding": side}
        tried(bench, facts, partial(_exact, pair, inputs))
        for precision in HALVES:
            facts = {"check": f"{precision} states and gradients", "padding": side}
            tried(bench, facts, partial(_rounded, bench, pair, inputs, precision))
    tried(bench, {"check": "dropout", "padding": "none"}, partial(_dropped, bench))


def _networks(bench: Bench, config: dict[str, Any]) -> dict[str, Any]:
    """The same network with both attentions, in fp32 and without dropout."""
    settings = bench.settings("large")
    training = replace(settings.training, dropout=0.0, gradient_checkpointing=False)
    settings = replace(settings, pooling="mean", training=training)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        write_weights(config, Path(folder), bench.device)
        for name, kind in (("theirs", "huggingface"), ("ours", "fast")):
            torch.manual_seed(1)
            found[name] = encoder(Path(folder), replace(settings, attention=kind), bench.device).eval()
            # Scores of about 1, so that attention is far from even, and positions matter.
            for layer, each in found[name].named_parameters():
                if layer.endswith(("query_proj.weight", "key_proj.weight")):
                    each.data *= 2 * (1024 / config["hidden_size"]) ** 0.5
    return found


def _inputs(bench: Bench, vocabulary: int, lengths: list[int]) -> Inputs:
    draw = np.random.default_rng(0)
    ids, mask = pad([draw.integers(5, vocabulary, length, dtype=np.int32) for length in lengths], 0)
    labels = torch.arange(len(lengths) // 2, device=bench.device) % 3
    return Inputs(torch.from_numpy(ids).to(bench.device), torch.from_numpy(mask).to(bench.device), labels)


def _states(network: Any, inputs: Inputs) -> Tensor:
    """(sequences, length, hidden), zero where nobody looks."""
    with torch.no_grad():
        states = network.backbone(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
    return states.float() * inputs.mask[..., None]


def _answers(network: nn.Module, inputs: Inputs, scale: float = 1.0) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of their cross entropy."""
    network.zero_grad(set_to_none=True)
    logits = network(inputs.ids, inputs.mask)
    (scale * cross_entropy(logits, inputs.labels)).backward()
    found = {name: each.grad.float() / scale for name, each in network.named_parameters() if each.grad is not None}
    network.zero_grad(set_to_none=True)
    return logits.detach(), found


def _norm(tensors: Any) -> float:
    """Of many tensors as one."""
    return float(torch.stack([each.norm() for each in tensors]).norm())


def _exact(pair: dict[str, Any], inputs: Inputs) -> Row:
    (wanted, slopes), (logits, ours) = (_answers(pair[name], inputs) for name in ("theirs", "ours"))
    logit = float((logits - wanted).norm() / wanted.norm())
    # Some gradients are 0 but for rounding (a key's bias moves no softmax): the scale is that of all together.
    gradient = max(float((ours[name] - each).norm()) for name, each in slopes.items()) / _norm(slopes.values())
    kept = ours.keys() == slopes.keys() and logit <= LOGITS and gradient <= GRADIENTS
    return {
        "found": rounded(logit),
        "limit": LOGITS,
        "found in gradients": rounded(gradient),
        "limit of gradients": GRADIENTS,
        "kept": kept,
    }


def _rounded(bench: Bench, pair: dict[str, Any], inputs: Inputs, precision: str) -> Row:
    """Both networks' distance from transformers' fp32: states in half weights, gradients under autocast."""
    exact, (_, slopes) = _states(pair["theirs"], inputs), _answers(pair["theirs"], inputs)
    states, gradients = {}, {}
    for name, network in pair.items():
        with torch.autocast(bench.device.split(":")[0], DTYPES[precision]):
            _, found = _answers(network, inputs, SCALE)
        gradients[name] = _norm([found[key] - each for key, each in slopes.items()]) / _norm(slopes.values())
        half = copy.deepcopy(network).to(DTYPES[precision])
        states[name] = float((_states(half, inputs) - exact).norm() / exact.norm())
        del half, found
    found_states, found_gradients = (each["ours"] / each["theirs"] for each in (states, gradients))
    return {
        "found": rounded(found_states),
        "limit": NO_WORSE,
        "found in gradients": rounded(found_gradients),
        "limit of gradients": NO_WORSE,
        "kept": found_states <= NO_WORSE and found_gradients <= NO_WORSE,
        "our relative error": rounded(states["ours"]),
        "our relative error of gradients": rounded(gradients["ours"]),
    }


def _dropped(bench: Bench) -> Row:
    """The mean of one layer's attention over many draws is its answer without dropout: all shares are dropped alike."""
    torch.manual_seed(0)
    network: Any = DebertaV2Model(DebertaV2Config(**deberta(64, 4, 1, 0.2)))
    network = use_fast_attention(network).to(bench.device).eval()
    ids = torch.randint(4, 1000, (1, 24), device=bench.device).expand(64 if bench.tiny else 512, -1)
    mask = torch.ones_like(ids)
    mask[:, 20:] = 0
    states = embedded(network, ids, mask)
    call = attention_call(network, states, mask)
    layer = network.encoder.layer[0].attention.self
    with torch.no_grad():
        still = call()[0]
        layer.train()
        layer.pos_dropout.eval()
        many = torch.cat([call() for _ in range(8)])
    error = many.std(dim=0) / len(many) ** 0.5
    away = float(((many.mean(dim=0) - still).abs() / error).max())
    finite = bool(many.isfinite().all())
    return {"found": rounded(away), "limit": DEVIATIONS, "kept": finite and away <= DEVIATIONS}
