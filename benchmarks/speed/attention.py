"""How many times as fast as transformers' is our attention of DeBERTa on a CPU, forward, and with backward?

python -m benchmarks.speed.attention [--rounds 5]
# minutes: not measured; writes benchmarks/results/attention.json

Networks in the shapes below with random weights, the same in both; rows of full length with as many tokens as a
batch of training has; rounds of the two take turns, and each one's best counts. `benchmarks.gpu --parts attention` asks
the same of a GPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.result import command_line, write
from benchmarks.speed.networks import deberta
from pipeline.models.backbones.loading import accelerated

# Hidden size and heads: our scratch backbone's, and microsoft/deberta-v3-xsmall's.
SHAPES = {"scratch": (128, 4), "xsmall": (384, 6)}
LENGTHS, LAYERS, DROPOUT, TOKENS = (128, 256, 512, 1024), 3, 0.1, 2048


def main(rounds: int, threads: int, output: Path) -> None:
    torch.set_num_threads(threads)
    rows = []
    for name, shape in SHAPES.items():
        network = DebertaV2Model(DebertaV2Config(**deberta(*shape, LAYERS, DROPOUT)))
        for length in LENGTHS:
            for precision in ("fp32", "bf16"):
                rows.append({"shape": name, "length": length, "precision": precision})
                rows[-1] |= compared(network, length, precision, rounds)
                print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    write("attention", {"rows": rows}, output, threads=threads, layers=LAYERS, dropout=DROPOUT)


def compared(network: nn.Module, length: int, precision: str, rounds: int) -> dict[str, Any]:
    """Returns milliseconds of both and their ratio: attention alone (one layer's), and the whole network, each way."""
    pairs = {"theirs": network, "ours": accelerated(copy.deepcopy(network))}
    ids = torch.randint(4, 1000, (TOKENS // length, length))
    # As in training batches: rows of nearly equal length, the shorter ones padded.
    mask = torch.ones_like(ids)
    mask[-1, -length // 16 :] = 0
    found: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for who, each in pairs.items():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                for what, seconds in timed(each, ids, mask).items():
                    best = found.setdefault(what, {})
                    best[who] = min(seconds, best.get(who, seconds))
    return {
        what: {who: round(1000 * seconds, 2) for who, seconds in each.items()}
        | {"ratio": round(each["theirs"] / each["ours"], 2)}
        for what, each in found.items()
    }


def timed(network: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Returns the seconds of each way once."""
    states = embedded(network, ids, mask)
    alone = attention_call(network, states, mask)

    def whole() -> torch.Tensor:
        result: torch.Tensor = network(input_ids=ids, attention_mask=mask).last_hidden_state
        return result

    seconds = {}
    for what, call in (("attention", alone), ("network", whole)):
        network.eval()
        with torch.no_grad():
            seconds[f"{what} forward"] = clocked(call)
        network.train()
        states.requires_grad_()
        seconds[f"{what} both"] = clocked(lambda call=call: backward(call))
        network.zero_grad(set_to_none=True)
    return seconds


def embedded(network: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns (rows, length, hidden) embeddings of (rows, length) ids, which no gradient goes through."""
    with torch.no_grad():
        states: torch.Tensor = network.embeddings(input_ids=ids, mask=mask)
    return states


def attention_call(network: Any, states: torch.Tensor, mask: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Returns a call of the lowest layer's attention alone, as its encoder makes it."""
    encoder = network.encoder
    distances, keys = encoder.get_rel_pos(states), encoder.get_attention_mask(mask)

    def call() -> torch.Tensor:
        arguments = {"relative_pos": distances, "rel_embeddings": encoder.get_rel_embedding()}
        result: torch.Tensor = encoder.layer[0].attention.self(states, keys, **arguments)[0]
        return result

    return call


def backward(call: Callable[[], torch.Tensor]) -> None:
    """Goes forward, and computes the gradients of the sum of squares."""
    call().float().square().sum().backward()


def clocked(call: Any) -> float:
    """Returns the wall seconds of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.threads, arguments.output)
