"""DeBERTa's attention, ours against transformers': seconds forward, and forward with backward, as ratios in one run.

python -m benchmarks.speed.attention [--rounds 5] [--device cuda]

Networks in the shapes below with random weights, the same in both; rows of full length with as many tokens as a
batch of training has; rounds of the two take turns, and each one's best counts. Results go to
benchmarks/results/attention.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.machine import machine
from benchmarks.speed.networks import deberta
from pipeline.models.backbones.loading import accelerated

RESULTS = Path(__file__).parents[1] / "results" / "attention.json"
# Hidden size and heads: our scratch backbone's, microsoft/deberta-v3-xsmall's and -large's.
SHAPES = {"scratch": (128, 4), "xsmall": (384, 6), "large": (1024, 16)}
LENGTHS, LAYERS, DROPOUT = (128, 256, 512, 1024), 3, 0.1


def main(rounds: int, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    shapes = SHAPES if device == "cuda" else {name: SHAPES[name] for name in ("scratch", "xsmall")}
    rows = []
    for name, shape in shapes.items():
        network = DebertaV2Model(DebertaV2Config(**deberta(*shape, LAYERS, DROPOUT))).to(device)
        for length in LENGTHS:
            for precision in ("fp32", "bf16"):
                rows.append({"shape": name, "length": length, "precision": precision})
                rows[-1] |= compared(network, length, precision, device, rounds)
                print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    about = {"date": date.today().isoformat(), "machine": machine(), "device": device, "threads": threads}
    RESULTS.write_text(json.dumps(about | {"layers": LAYERS, "dropout": DROPOUT, "rows": rows}, indent=2) + "\n")


def compared(network: nn.Module, length: int, precision: str, device: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of both and their ratio: attention alone (one layer's), and the whole network, each way."""
    pairs = {"theirs": network, "ours": accelerated(copy.deepcopy(network))}
    count = max(1, (16384 if device == "cuda" else 2048) // length)
    ids = torch.randint(4, 1000, (count, length), device=device)
    # As in training batches: rows of nearly equal length, the shorter ones padded.
    mask = torch.ones_like(ids)
    mask[-1, -length // 16 :] = 0
    found: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for who, each in pairs.items():
            with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
                for what, seconds in timed(each, ids, mask, device).items():
                    best = found.setdefault(what, {})
                    best[who] = min(seconds, best.get(who, seconds))
    return {
        what: {who: round(1000 * seconds, 2) for who, seconds in each.items()}
        | {"ratio": round(each["theirs"] / each["ours"], 2)}
        for what, each in found.items()
    }


def timed(network: nn.Module, ids: torch.Tensor, mask: torch.Tensor, device: str) -> dict[str, float]:
    """Seconds of each way once."""
    states = embedded(network, ids, mask)
    alone = attention_call(network, states, mask)

    def whole() -> torch.Tensor:
        result: torch.Tensor = network(input_ids=ids, attention_mask=mask).last_hidden_state
        return result

    seconds = {}
    for what, call in (("attention", alone), ("network", whole)):
        network.eval()
        with torch.no_grad():
            seconds[f"{what} forward"] = clocked(call, device)
        network.train()
        states.requires_grad_()
        seconds[f"{what} both"] = clocked(lambda call=call: backward(call), device)
        network.zero_grad(set_to_none=True)
    return seconds


def embedded(network: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(rows, length) ids -> (rows, length, hidden), which no gradient goes through."""
    with torch.no_grad():
        states: torch.Tensor = network.embeddings(input_ids=ids, mask=mask)
    return states


def attention_call(network: Any, states: torch.Tensor, mask: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call of the lowest layer's attention alone, as its encoder makes it."""
    encoder = network.encoder
    distances, keys = encoder.get_rel_pos(states), encoder.get_attention_mask(mask)

    def call() -> torch.Tensor:
        arguments = {"relative_pos": distances, "rel_embeddings": encoder.get_rel_embedding()}
        result: torch.Tensor = encoder.layer[0].attention.self(states, keys, **arguments)[0]
        return result

    return call


def backward(call: Callable[[], torch.Tensor]) -> None:
    """Forward, and the gradients of the sum of squares."""
    call().float().square().sum().backward()


def clocked(call: Any, device: str) -> float:
    """Wall seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.device, arguments.threads)
