"""What do the real shapes, deberta-v3-large and Llama-3-8B, take in memory and time?

python -m benchmarks.speed.shapes [--layers N] [--tokens N] [--threads N] [--note TEXT]
# minutes: not measured; writes benchmarks/results/shapes.json

One inference batch and one training step each through Podium's own code, with random weights and the settings of the
preset `workstation`: the encoder siamese and equivariant, the decoder LoRA on an NF4 base. On a GPU with enough memory
in full; else at two small depths, whose difference is what a layer costs, and from which the figures of full depth are
extrapolated (they are marked as such). Where memory is short, try fewer layers or tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.process import run
from benchmarks.result import command_line, write
from benchmarks.speed.networks import SHAPES

PRESET = Path("pipeline/presets/workstation.yaml")
SMALL = 2
"""Layers of the deeper one of the two runs, where a shape is scaled down."""
WHAT = ("inference", "training")
GPU_GB = 22
"""A GPU with that much free memory gets the whole networks."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--layers", type=int, help="depth to run, up to the whole; half of it is run as well")
    parser.add_argument("--tokens", type=int, help="per sequence, in place of 768 and 1024")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    parser.add_argument("--note", help="what a reader of the result should know about the machine at the time")
    arguments = parser.parse_args()
    print("GB: the peak of the process, or of the GPU's allocations; seconds: of one step, of one batch;")
    print("CPU s: of all threads together, which other work on the machine disturbs less")
    print(f"{'shape':<18}{'layers':>7}  {'what':<10}{'GB':>7}{'seconds':>9}{'CPU s':>9}{'tokens/s':>10}", flush=True)
    table = {name: measure(name, arguments) for name in SHAPES}
    note = {"note": arguments.note} if arguments.note else {}
    write("shapes", {"shapes": table}, arguments.output, threads=arguments.threads, **note)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns every run of one shape, and what follows from them for its full depth."""
    whole, runs = SHAPES[name]["layers"], []
    depth = min(arguments.layers or (whole if gpu_is_large() else SMALL), whole)
    for layers in (depth,) if depth in (1, whole) else (depth // 2, depth):
        runs.append(in_child(name, layers, arguments.tokens or SHAPES[name]["tokens"], arguments.threads))
        for what in WHAT:
            tell(name, f"{layers}", what, runs[-1][what])
    found: dict[str, Any] = {"layers": whole, "runs": runs}
    if len(runs) == 2:
        found["extrapolated"] = {what: extrapolated(runs, what, whole) for what in WHAT}
        for what, told in found["extrapolated"].items():
            tell(name, f"~{whole}", what, told)
            per = told["per_layer"]
            costs = f"{per['gb']:.2f} GB, {per['seconds']:.2f} s, {per['cpu_seconds']:.2f} CPU s"
            print(f"{'':<27}extrapolated to {whole} layers; each costs {costs}", flush=True)
    return found


def tell(name: str, layers: str, what: str, found: dict[str, Any]) -> None:
    """Prints one line of the table."""
    columns = (("gb", 7, 2), ("seconds", 9, 2), ("cpu_seconds", 9, 2), ("tokens_per_second", 10, 0))
    cells = ((found[key], width, digits) for key, width, digits in columns)
    numbers = "".join(f"{'–' if value is None else f'{value:.{digits}f}':>{width}}" for value, width, digits in cells)
    print(f"{name:<18}{layers:>7}  {what:<10}{numbers}", flush=True)


def extrapolated(runs: list[dict[str, Any]], what: str, layers: int) -> dict[str, Any]:
    """Returns memory and seconds of `layers` layers, on the straight line through two depths.

    None where the deeper run took no more than the other: the machine was too busy to tell.
    """
    few, many = (each[what] for each in runs)
    between, further = runs[1]["layers"] - runs[0]["layers"], layers - runs[1]["layers"]
    per = {key: round((many[key] - few[key]) / between, 3) for key in ("gb", "seconds", "cpu_seconds")}
    full = {key: round(many[key] + each * further, 3) if each > 0 else None for key, each in per.items()}
    tokens, seconds = many["tokens_per_second"] * many["seconds"], full["seconds"]
    return {**full, "tokens_per_second": round(tokens / seconds, 1) if seconds else None, "per_layer": per}


def gpu_is_large() -> bool:
    """Says whether there is a GPU with room for the whole networks; a child asks, so that this process stays small."""
    code = "import torch; print(torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0)"
    return int(run([sys.executable, "-c", code]).output) > GPU_GB * 1e9


def in_child(name: str, layers: int, tokens: int, threads: int) -> dict[str, Any]:
    """Returns what benchmarks.speed.one_shape says about one run, in a process of its own, so that peaks do not mix."""
    config = SHAPES[name]["config"] | {"num_hidden_layers": layers}
    asked = {"member": SHAPES[name]["member"], "preset": str(PRESET), "config": config}
    asked |= {"layers": layers, "tokens": tokens, "threads": threads}
    command = [sys.executable, "-m", "benchmarks.speed.one_shape", json.dumps(asked)]
    return json.loads(run(command).output.splitlines()[-1])


if __name__ == "__main__":
    main()
