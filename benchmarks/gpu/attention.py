"""Attention of deberta-v3-large alone, ours against transformers': time and memory of a layer, there and back."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.gpu.bench import HALVES, Bench, Row, fitting, rounded, tried
from benchmarks.speed.attention import DROPOUT, attention_call, backward, embedded
from benchmarks.speed.networks import deberta
from pipeline.models.backbones.loading import DTYPES
from pipeline.models.deberta.disentangled import use_fast_attention

TOKENS, TIMES = 16384, 10


def attention(bench: Bench) -> None:
    """A row for each precision, length and way: milliseconds, and the GB on top of the network, of both."""
    shape = bench.config("deberta-v3-large")
    network = DebertaV2Model(DebertaV2Config(**deberta(shape["hidden_size"], shape["num_attention_heads"], 1, DROPOUT)))
    for precision in HALVES:
        theirs = copy.deepcopy(network).to(bench.device, DTYPES[precision])
        pair = {"theirs": theirs, "ours": use_fast_attention(copy.deepcopy(theirs))}
        for length in bench.by_worth:
            for way in ("forward", "both"):
                facts = {"precision": precision, "tokens": length, "way": way}
                tried(bench, facts, partial(_compared, bench, pair, length, way))


def _compared(bench: Bench, pair: dict[str, Any], length: int, way: str) -> Row:
    count, found = compared(bench, pair, length, way)
    theirs, ours = found["theirs"], found["ours"]
    ratio = theirs["ms"] / ours["ms"]
    row: Row = {"rows": count, "theirs ms": theirs["ms"], "ours ms": ours["ms"], "times faster": rounded(ratio)}
    if bench.on_gpu:
        row |= {
            "theirs GB": theirs["gb"],
            "ours GB": ours["gb"],
            "times less memory": rounded(theirs["gb"] / ours["gb"]),
        }
    return row


def compared(bench: Bench, pair: dict[str, Any], length: int, way: str) -> tuple[int, dict[str, dict[str, float]]]:
    """Returns how many rows fit the memory, and milliseconds and GB of each network with so many."""

    def attempt(rows: int) -> dict[str, dict[str, float]]:
        return {who: _one(bench, each, rows, length, way) for who, each in pair.items()}

    return fitting(most_rows(bench, length), attempt)


def most_rows(bench: Bench, length: int) -> int:
    """Returns how many rows of a length make a batch, where the memory holds them."""
    return max(1, (128 if bench.tiny else TOKENS) // length)


def _one(bench: Bench, network: Any, rows: int, length: int, way: str) -> dict[str, float]:
    """Returns milliseconds, and the GB on top of the network, of one layer's attention.

    Rows are of full length, the last of them padded a little, as in training batches.
    """
    ids = torch.randint(4, 1000, (rows, length), device=bench.device)
    mask = torch.ones_like(ids)
    mask[-1, -length // 16 :] = 0
    network.train(way == "both")
    states = embedded(network, ids, mask)
    before = torch.cuda.memory_allocated() / 1e9 if bench.on_gpu else 0.0
    call = attention_call(network, states.requires_grad_(way == "both"), mask)
    with torch.set_grad_enabled(way == "both"):
        found = bench.measured((lambda: backward(call)) if way == "both" else call, TIMES)
    network.zero_grad(set_to_none=True)
    return {"ms": rounded(1000 * found["seconds"]), "gb": rounded(found["gb"] - before)}
