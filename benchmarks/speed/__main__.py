"""Runs all sides in turn, several rounds, and prints the table.

python -m benchmarks.speed [--rows 240] [--held 160] [--rounds 3] [--precision fp32]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine
from benchmarks.speed import ours, theirs
from benchmarks.speed.protocol import BACKBONE, Bench, labels_of, loss_of, opened
from pipeline.files import write_json

RESULTS = Path("benchmarks/results")
TRAINING = {"Podium": None, "Trainer, padded to the maximum": False, "Trainer, by length": True}
"""Side -> whether its Trainer pads dynamically."""


def clocked(call: Callable[[], Any]) -> float:
    """Seconds of a call; what it prints is dropped."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        call()
    return time.perf_counter() - began


def trained(bench: Bench, side: str, seed: int, work: Path, threads: int) -> dict[str, float]:
    """Seconds of one epoch, and the loss on held-out rows afterwards."""
    dynamic = TRAINING[side]
    network = bench.network("fast" if dynamic is None else "huggingface", seed)
    if dynamic is None:
        seconds = clocked(lambda: ours.train(bench, network, seed, work, threads))
    else:
        seconds = clocked(lambda: theirs.train(bench, network, seed, work, dynamic))
    loss = loss_of(network, lambda each: ours.answer(bench, each, bench.held), labels_of(bench.held))
    return {"seconds": seconds, "loss": loss}


def answered(bench: Bench, work: Path) -> dict[str, float]:
    """Seconds of every side for the held-out rows, with the same weights."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=240, help="to train on")
    parser.add_argument("--held", type=int, default=160, help="to answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-write", action="store_true")
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
    table = summary(training, inference, asked)
    about = {"date": date.today().isoformat(), "machine": machine(), "torch": torch.__version__} | vars(asked)
    if not asked.no_write:
        name = "speed.json" if asked.precision == "fp32" else f"speed-{asked.precision}.json"
        write_json(RESULTS / name, about | {"backbone": BACKBONE} | table)


def summary(training: dict[str, Any], inference: dict[str, list[float]], asked: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds, rates and ratios; printed as two tables in Markdown."""
    found: dict[str, Any] = {"training": {}, "inference": {}}
    ratios = {side: [each["seconds"] for each in rounds] for side, rounds in training.items()}
    print("\n| training | rows per second | Podium against it (least, most) | loss on new rows |\n|---|---|---|---|")
    for side, rounds in training.items():
        loss = [each["loss"] for each in rounds]
        ratio = np.array(ratios[side]) / np.array(ratios["Podium"])
        rate = asked.rows / float(np.median(ratios[side]))
        found["training"][side] = {"rows_per_second": rate, "ratio": ratio.tolist(), "loss": loss}
        print(f"| {side} | {rate:.2f} | {_ratio(ratio)} | {np.mean(loss):.4f} ({min(loss):.4f} to {max(loss):.4f}) |")
    print("\n| inference | rows per second | Podium against it (least, most) |\n|---|---|---|")
    for side, seconds in inference.items():
        ratio = np.array(seconds) / np.array(inference["Podium"])
        rate = asked.held / float(np.median(seconds))
        found["inference"][side] = {"rows_per_second": rate, "ratio": ratio.tolist()}
        print(f"| {side} | {rate:.2f} | {_ratio(ratio)} |")
    return found


def _ratio(each: np.ndarray) -> str:
    return f"{np.median(each):.2f} ({each.min():.2f}, {each.max():.2f})"


if __name__ == "__main__":
    main()
