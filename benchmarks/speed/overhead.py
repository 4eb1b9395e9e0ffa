"""What does each technique cost? Time and memory of the same steps with and without it, as ratios.

python -m benchmarks.speed.overhead          # a few minutes on two cores; writes benchmarks/results/overhead.json

Every technique runs in a process of its own, in interleaved rounds; the fastest round counts. The network has
DeBERTa-v3's shape with random weights; a run is 20 steps, so that DENI's schedule has all its phases.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.process import run
from benchmarks.result import command_line, markdown, write
from benchmarks.speed.networks import SHAPES
from benchmarks.speed.one_shape import encoder, measured, random_rows, write_weights
from pipeline.config import member_settings
from pipeline.settings.encoder import Encoder
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import resolve_precision, training_device
from pipeline.training.loop import TrainingRun, fit

ROUNDS, STEPS, ROWS = 2, 20, 4
TECHNIQUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "label_smoothing": {"label_smoothing": 0.2},
    "freeze_embeddings": {"freeze_embeddings": True},
    "ema": {"ema": 0.1},
    "awp": {"awp": {}},
    "fgm": {"fgm": {}},
    "smart": {"smart": {}},
    "proximal": {"proximal": {}},
    "r_drop": {"r_drop": {}},
    "mixout": {"mixout": {}},
    "dsgd": {"dsgd": {}},
    "deni": {"deni": {}},
}
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "vocab_size": 8000,
}
"""On a CPU, in place of deberta-v3-large's own numbers."""


def one(name: str) -> dict[str, float]:
    """Returns the seconds and peak GB of one run with a technique."""
    precision = resolve_precision("auto")[0] if torch.cuda.is_available() else "fp32"
    device = training_device(precision, 2)
    on_gpu = device.name != "cpu"
    tokens = 512 if on_gpu else 64
    config = SHAPES["deberta-v3-large"]["config"] | {"num_hidden_layers": 24} | ({} if on_gpu else SMALL)
    budget = 2 * ROWS * tokens
    training = {
        "schedule": {"rate": 1.0e-5},
        "batches": {"rows_per_step": ROWS, "tokens_per_batch": budget},
        "precision": precision,
    }
    given = {"kind": "encoder", "backbone": "x", "max_tokens": 512, "training": training | TECHNIQUES[name]}
    settings = member_settings(given, name)
    assert isinstance(settings, Encoder)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(config, Path(folder), device.name)
        network = encoder(Path(folder), settings, device.name)
        asked = {"tokens": tokens, "config": config}
        rows = random_rows(STEPS * ROWS, 2, asked, device.name, budget, ROWS)

        def train() -> None:
            checkpoint = Checkpoint(Path(folder) / "checkpoint")
            fit(TrainingRun(network, rows, settings.training, device, checkpoint, name))
            (checkpoint.folder / "train-state.safetensors").unlink()

        return measured(train, on_gpu)


def main(output: Path) -> None:
    """Prints the table and writes it."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in TECHNIQUES}
    for _ in range(ROUNDS):
        for name in TECHNIQUES:
            done = run([sys.executable, "-W", "ignore", "-m", "benchmarks.speed.overhead", "--one", name])
            rounds[name].append(json.loads(done.output.splitlines()[-1]))
            print(name, rounds[name][-1], flush=True)
    best = {
        name: {key: min(each[key] for each in found) for key in ("gb", "seconds")} for name, found in rounds.items()
    }
    ratios = {
        name: {key: round(value / best["plain"][key], 2) for key, value in found.items()}
        for name, found in best.items()
    }
    about = {"machine": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    write("overhead", {"ratios": ratios, "best": best}, output, **about)
    rows = [[f"`{name}`", f"{found['seconds']:.2f}", f"{found['gb']:.2f}"] for name, found in ratios.items()]
    print(markdown(["technique", "time", "memory"], rows))


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--one", choices=list(TECHNIQUES), help="one run with a technique; prints it, writes nothing")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
    else:
        main(arguments.output)
