"""Memory and time of the real shapes, deberta-v3-large and Llama-3-8B with random weights, through Podium's own code.

python -m benchmarks.speed.shapes [--layers N] [--tokens N] [--threads N] [--note TEXT] [--no-write]

One inference batch and one training step each, with the settings of the preset `workstation`: the encoder siamese and
equivariant, the decoder LoRA on an NF4 base. On a GPU with enough memory in full; else at two small depths, whose
difference is what a layer costs, and from which the figures of full depth are extrapolated (they are marked as such).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.speed.networks import SHAPES

RESULT = Path("benchmarks/results/shapes.json")
PRESET = Path("pipeline/presets/workstation.yaml")
SMALL = 2
"""Layers of the deeper one of the two runs, where a shape is scaled down."""
WHAT = ("inference", "training")
GPU_GB = 22
"""A GPU with that much free memory gets the whole networks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, help="depth to run, up to the whole; half of it is run as well")
    parser.add_argument("--tokens", type=int, help="per sequence, in place of 768 and 1024")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    parser.add_argument("--note", help="what a reader of the result should know about the machine at the time")
    parser.add_argument("--no-write", action="store_true", help=f"leave {RESULT} as it is")
    arguments = parser.parse_args()
    print("GB: the peak of the process, or of the GPU's allocations; seconds: of one step, of one batch;")
    print("CPU s: of all threads together, which other work on the machine disturbs less")
    print(f"{'shape':<18}{'layers':>7}  {'what':<10}{'GB':>7}{'seconds':>9}{'CPU s':>9}{'tokens/s':>10}", flush=True)
    table = {name: measure(name, arguments) for name in SHAPES}
    result = {"date": date.today().isoformat(), "machine": machine(), "threads": arguments.threads}
    result |= {"note": arguments.note} if arguments.note else {}
    if not arguments.no_write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps({**result, "shapes": table}, indent=2) + "\n", encoding="utf-8")


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every run of one shape, and what follows from them for its full depth."""
    whole, runs = SHAPES[name]["layers"], []
    depth = min(arguments.layers or (whole if gpu_is_large() else SMALL), whole)
    for layers in (depth,) if depth in (1, whole) else (depth // 2, depth):
        run = in_child(name, layers, arguments.tokens or SHAPES[name]["tokens"], arguments.threads)
        runs.append(run)
        for what in WHAT:
            tell(name, f"{layers}", what, run[what])
    found: dict[str, Any] = {"layers": whole, "runs": runs}
    if len(runs) == 2:
        found["extrapolated"] = {what: extrapolated(runs, what, whole) for what in WHAT}
        for what, told in found["extrapolated"].items():
            tell(name, f"~{whole}", what, told)
            per = told["per_layer"]
            costs = f"{per['gb']:.2f} GB, {per['seconds']:.2f} s, {per['cpu_seconds']:.2f} CPU s"
            print(f"{'':<27}extrapolated to {whole} layers; each costs {costs}", flush=True)
    return found


def tell(name: str, layers: str, what: str, run: dict[str, Any]) -> None:
    """One line of the table."""
    columns = (("gb", 7, 2), ("seconds", 9, 2), ("cpu_seconds", 9, 2), ("tokens_per_second", 10, 0))
    numbers = "".join(f"{'–' if run[k] is None else f'{run[k]:.{digits}f}':>{width}}" for k, width, digits in columns)
    print(f"{name:<18}{layers:>7}  {what:<10}{numbers}", flush=True)


def extrapolated(runs: list[dict[str, Any]], what: str, layers: int) -> dict[str, Any]:
    """Memory and seconds of `layers` layers, on the straight line through two depths.

    None where the deeper run took no more than the other: the machine was too busy to tell.
    """
    few, many = (run[what] for run in runs)
    between, further = runs[1]["layers"] - runs[0]["layers"], layers - runs[1]["layers"]
    per = {key: round((many[key] - few[key]) / between, 3) for key in ("gb", "seconds", "cpu_seconds")}
    full = {key: round(many[key] + each * further, 3) if each > 0 else None for key, each in per.items()}
    tokens, seconds = many["tokens_per_second"] * many["seconds"], full["seconds"]
    return {**full, "tokens_per_second": round(tokens / seconds, 1) if seconds else None, "per_layer": per}


def gpu_is_large() -> bool:
    """Whether there is a GPU with room for the whole networks. torch is loaded in a child: this process stays small."""
    code = "import torch; print(torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(told.stdout) > GPU_GB * 1e9


def in_child(name: str, layers: int, tokens: int, threads: int) -> dict[str, Any]:
    """What benchmarks.speed.one_shape says about one run, in a process of its own, so that peaks do not mix."""
    config = SHAPES[name]["config"] | {"num_hidden_layers": layers}
    asked = {"member": SHAPES[name]["member"], "preset": str(PRESET), "config": config}
    asked |= {"layers": layers, "tokens": tokens, "threads": threads}
    command = [sys.executable, "-m", "benchmarks.speed.one_shape", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = "killed: out of memory" if done.returncode < 0 else done.stderr[-1500:]
        raise SystemExit(f"{name} with {layers} layers: {reason}; try fewer --layers or --tokens")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
