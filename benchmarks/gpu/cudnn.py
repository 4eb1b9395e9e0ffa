"""Attention with cuDNN's kernels among those that PyTorch may choose, and without, as Podium has it.

For rows of one shape again and again, and for shapes that come for the first time, as most of Podium's batches have:
cuDNN plans anew for each. And whether gradients are finite under a mask at a length that torch 2.13 is known to fail at
(pytorch/pytorch#196678).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.gpu.attention import DROPOUT, most_rows
from benchmarks.gpu.bench import Bench, Row, rounded, tried
from benchmarks.speed.attention import attention_call, embedded
from benchmarks.speed.networks import deberta
from pipeline.models.backbones.loading import DTYPES
from pipeline.models.deberta.disentangled import use_fast_attention

PRECISION, TIMES = "bf16", 10
SHAPES = 6
"""Lengths that come for the first time, 8 tokens from one to the next."""
LOW = 64
"""A length of 64 above a multiple of 128 is the one with the wrong gradients."""


def cudnn(bench: Bench) -> None:
    """A row for each attention, without cuDNN and with it: milliseconds a call, and whether gradients are finite."""
    length = bench.by_worth[0]
    try:
        for allowed in (False, True):
            torch.backends.cuda.enable_cudnn_sdp(allowed)
            about = {"cuDNN": "on" if allowed else "off"}
            tried(bench, {"attention": "DeBERTa, inference"} | about, partial(_encoder, bench, length))
            tried(bench, {"attention": "Llama, training"} | about, partial(_decoder, bench, length, False))
            masked = length if bench.tiny else length - LOW
            tried(bench, {"attention": "Llama under a mask, training"} | about, partial(_decoder, bench, masked, True))
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


def _encoder(bench: Bench, length: int) -> Row:
    shape = bench.config("deberta-v3-large")
    torch.manual_seed(0)
    config = DebertaV2Config(**deberta(shape["hidden_size"], shape["num_attention_heads"], 1, DROPOUT))
    network = use_fast_attention(DebertaV2Model(config)).to(bench.device, DTYPES[PRECISION]).eval()

    def called(tokens: int) -> Callable[[], Tensor]:
        ids = torch.randint(4, 1000, (most_rows(bench, length), tokens), device=bench.device)
        mask = torch.ones_like(ids)
        return attention_call(network, embedded(network, ids, mask), mask)

    with torch.no_grad():
        return {"tokens": length} | _timed(bench, called, length)


def _decoder(bench: Bench, length: int, masked: bool) -> Row:
    """One layer's attention alone, there and back."""
    config = bench.config("llama-3-8b")
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = config["hidden_size"] // heads
    grouped = {} if masked else {"enable_gqa": True}  # as pipeline/models/backbones/masks.py has it

    def called(tokens: int) -> Callable[[], list[Tensor]]:
        torch.manual_seed(0)
        shapes = (heads, heads if masked else groups, heads if masked else groups)
        query, key, value = (
            torch.randn(
                most_rows(bench, length), each, tokens, width, device=bench.device, dtype=DTYPES[PRECISION]
            ).requires_grad_()
            for each in shapes
        )
        mask = torch.ones(tokens, tokens, dtype=torch.bool, device=bench.device).tril() if masked else None

        def call() -> list[Tensor]:
            context = scaled_dot_product_attention(query, key, value, mask, is_causal=not masked, **grouped)
            return list(torch.autograd.grad(context.float().square().sum(), (query, key, value)))

        call.kernel = torch._fused_sdp_choice(query, key, value, mask, 0.0, not masked, **grouped)  # type: ignore[attr-defined]
        return call

    call = called(length)
    finite = all(bool(each.isfinite().all()) for each in call())
    kernel = SDPBackend(call.kernel).name  # type: ignore[attr-defined]
    return {"tokens": length} | _timed(bench, called, length) | {"kernel": kernel, "finite": finite}


def _timed(bench: Bench, called: Callable[[int], Callable[[], object]], length: int) -> Row:
    """Milliseconds a call: the best of some of one shape, and the mean over shapes that come for the first time."""
    same = bench.measured(called(length), TIMES)["seconds"]
    seconds = 0.0
    for number in range(1, SHAPES + 1):
        call = called(length - (1 if bench.tiny else 8) * number)
        if bench.on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        if bench.on_gpu:
            torch.cuda.synchronize()
        seconds += time.perf_counter() - began
    return {"ms, same shape": rounded(1000 * same), "ms, new shapes": rounded(1000 * seconds / SHAPES)}
