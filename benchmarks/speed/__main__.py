"""Is Podium faster on real text than what a user of Hugging Face's libraries would write, at the same loss?

python -m benchmarks.speed [--rows 240] [--held 160] [--rounds 3] [--precision fp32]
# half an hour on two cores; writes benchmarks/results/speed.json

All sides run in turn, several rounds.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import command_line, markdown, write
from benchmarks.speed import ours, theirs
from benchmarks.speed.protocol import BACKBONE, Bench, labels_of, loss_of, opened
from pipeline.stage import stage

TRAINING = {"Podium": None, "Trainer, padded to the maximum": False, "Trainer, by length": True}
"""Side -> whether its Trainer pads dynamically."""


def clocked(call: Callable[[], Any]) -> float:
    """Returns the seconds of a call; what it prints is dropped."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    return time.perf_counter() - began


def trained(bench: Bench, side: str, seed: int, work: Path, threads: int) -> dict[str, float]:
    """Returns the seconds of one epoch, and the loss on held-out rows afterwards."""
    dynamic = TRAINING[side]
    network = bench.network("fast" if dynamic is None else "huggingface", seed)
    if dynamic is None:
        seconds = clocked(lambda: ours.train(bench, network, seed, work, threads))
    else:
        seconds = clocked(lambda: theirs.train(bench, network, seed, work, dynamic))
    loss = loss_of(network, lambda each: ours.answer(bench, each, bench.held), labels_of(bench.held))
    return {"seconds": seconds, "loss": loss}


def answered(bench: Bench, work: Path) -> dict[str, float]:
    """Returns the seconds of every side for the held-out rows, with the same weights."""
    scorer = theirs.scorer(bench)
    mine, other = (bench.network(attention, 0).eval() for attention in ("fast", "huggingface"))
    asked: dict[str, Callable[[], Any]] = {
        "Podium": lambda: ours.answer(bench, mine, bench.held),
        "Trainer, padded to the maximum": lambda: theirs.answer(bench, other, bench.held, work, False),
        "Trainer, sorted by length": lambda: theirs.answer(bench, other, bench.held, work, True),
        "pipeline, one by one": lambda: theirs.scores(scorer, bench.held, 1),
        "pipeline, batches of 16": lambda: theirs.scores(scorer, bench.held, 16),
    }
    return {side: clocked(call) for side, call in asked.items()}


def main() -> None:
    """Prints the tables and writes them."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=240, help="to train on")
    parser.add_argument("--held", type=int, default=160, help="to answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")
    training: dict[str, list[dict[str, float]]] = {side: [] for side in TRAINING}
    inference: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bench = opened(work, asked.rows, asked.held, asked.precision)
        for number in range(asked.rounds):
            for side in TRAINING:
                training[side].append(trained(bench, side, number, work, asked.threads))
                print("round", number, side, training[side][-1], flush=True)
            for side, seconds in answered(bench, work).items():
                inference.setdefault(side, []).append(seconds)
                print("round", number, side, round(seconds, 2), flush=True)
    table = summary(training, inference, asked.rows, asked.held)
    settings = {key: value for key, value in vars(asked).items() if key != "output"}
    name = "speed" if asked.precision == "fp32" else f"speed-{asked.precision}"
    write(name, table, asked.output, torch=torch.__version__, **settings, backbone=BACKBONE)


def summary(training: dict[str, Any], inference: dict[str, list[float]], rows: int, held: int) -> dict[str, Any]:
    """Returns rates at the median over the rounds, and ratios; prints them as two tables in Markdown."""
    columns = ("rows per second", "Podium against it (least, most)")
    seconds = {side: [each["seconds"] for each in rounds] for side, rounds in training.items()}
    found = {"training": _rates(seconds, rows), "inference": _rates(inference, held)}
    lines = []
    for side, rounds in training.items():
        loss = [each["loss"] for each in rounds]
        found["training"][side]["loss"] = loss
        told = f"{np.mean(loss):.4f} ({min(loss):.4f} to {max(loss):.4f})"
        lines.append([side, *_cells(found["training"][side]), told])
    print("\n" + markdown(["training", *columns, "loss on new rows"], lines))
    print(
        "\n" + markdown(["inference", *columns], [[side, *_cells(each)] for side, each in found["inference"].items()])
    )
    return found


def _rates(seconds: dict[str, list[float]], rows: int) -> dict[str, dict[str, Any]]:
    """Returns each side's rows per second, and round by round its seconds over Podium's."""
    return {
        side: {
            "rows_per_second": rows / float(np.median(each)),
            "ratio": (np.array(each) / np.array(seconds["Podium"])).tolist(),
        }
        for side, each in seconds.items()
    }


def _cells(side: dict[str, Any]) -> tuple[str, str]:
    ratio = side["ratio"]
    return f"{side['rows_per_second']:.2f}", f"{np.median(ratio):.2f} ({min(ratio):.2f}, {max(ratio):.2f})"


if __name__ == "__main__":
    with stage("speed benchmark", keep_seconds=False):
        main()
