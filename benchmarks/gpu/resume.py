"""Whether a run that is killed after three steps and started again ends with the same bits as one left alone.

python -m benchmarks.gpu.resume FOLDER KIND MANNER DEVICE [--tiny]     # one run, in a process of its own

Networks of the real widths with few layers, real training settings, rows of many lengths, six steps of the real loop.
A run that is left alone is made twice in its process; a second process kills itself with SIGKILL behind the checkpoint
of step three, and a third goes on from there. Compared are all weights that learn, and the losses of all steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.bench import Bench, Row, tried
from benchmarks.gpu.llama import random_base
from benchmarks.gpu.parts import missing
from benchmarks.speed.one_shape import COMPETITION, encoder, random_rows, write_weights
from pipeline.members.decoder import with_adapters
from pipeline.models.backbones.quantised import QUANTISED, settled
from pipeline.models.network import decoder_network
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loop import TrainingRun, fit

STEPS, KILLED = 6, 3
ROWS, LAYERS, VOCABULARY = 8, 4, 8192
"""Rows of a step; so few layers and tokens make a checkpoint of a second."""
KINDS = {
    "DeBERTa, bf16": ("deberta-v3-large", "bf16", ""),
    "DeBERTa, fp16": ("deberta-v3-large", "fp16", ""),
    "Llama with LoRA, bf16": ("llama-3-8b", "bf16", "bf16"),
    "Llama with LoRA, nf4": ("llama-3-8b", "bf16", "nf4"),
    "Llama with LoRA, int8": ("llama-3-8b", "bf16", "int8"),
}
"""Shape, precision of training, and of the base."""
MANNERS = ("alone", "killed", "resumed")
LIMIT = 60.0
"""Seconds that a process may take."""


def resume(bench: Bench) -> None:
    """A row for each kind of network; on a large card the processes of all kinds run at once."""
    kinds = [kind for kind, (_, _, base) in KINDS.items() if base not in QUANTISED or not missing(("bitsandbytes",))]
    if bench.tiny:
        kinds = kinds[::3]  # where there are few cores, it is the processes' imports that take the time
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for group in [kinds] if bench.large or not bench.on_gpu else [[kind] for kind in kinds]:
            first = [_started(root, kind, manner, bench) for kind in group for manner in ("alone", "killed")]
            _ended(bench, first)
            _ended(bench, [_started(root, kind, "resumed", bench) for kind in group])
            for kind in group:
                tried(bench, {"kind": kind}, partial(_compared, root, kind))
    for kind in KINDS:
        if kind not in kinds:
            why = "not measured: left out by --tiny" if bench.tiny else "not measured: bitsandbytes is not installed"
            tried(bench, {"kind": kind}, lambda why=why: {"failed": why})


def _compared(root: Path, kind: str) -> Row:
    for manner in MANNERS:
        if not _file(root, kind, manner, "json").exists() and manner != "killed":
            log = " ".join(_file(root, kind, manner, "log").read_text(errors="replace").split())
            raise RuntimeError(f"the run {manner} came to no end: {log[-150:]}")
    first, second = json.loads(_file(root, kind, "alone", "json").read_text())
    (last,) = json.loads(_file(root, kind, "resumed", "json").read_text())
    if last["made"] != STEPS - KILLED:
        raise RuntimeError(f"the run that was to go on made {last['made']} steps")
    same = {"weights": "digest", "losses": "losses"}
    return {
        "steps": STEPS,
        "killed after": KILLED,
        "equal when run twice": all(first[each] == second[each] for each in same.values()),
        **{f"equal {name}": first[each] == last[each] for name, each in same.items()},
        "last loss": round(last["losses"][-1], 6),
    }


def _file(root: Path, kind: str, manner: str, ending: str) -> Path:
    return root / f"{kind.replace(' ', '-').replace(',', '')}-{manner}.{ending}"


def _started(root: Path, kind: str, manner: str, bench: Bench) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.gpu.resume", str(root), kind, manner, bench.device]
    with _file(root, kind, manner, "log").open("w") as log:
        return subprocess.Popen(command + ["--tiny"] * bench.tiny, stdout=log, stderr=subprocess.STDOUT)


def _ended(bench: Bench, processes: list[subprocess.Popen[bytes]]) -> None:
    """Waits for all of them; one that takes too long is ended."""
    until = min(time.monotonic() + LIMIT * (4 if bench.tiny else 1), bench.until)
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Watched(Checkpoint):
    """A checkpoint that is written after step KILLED alone, and of which a run that is to be killed does not return."""

    kills: bool = False
    made: int = field(default=0)
    """Steps of this process."""

    def due(self) -> bool:
        """Returns whether this is the moment."""
        self.made += 1
        return self.kills and self.made == KILLED

    def save(self, name: str, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
        """Writes the state, and kills the process where it is to be killed."""
        super().save(name, tensors, facts)
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)


def run(root: Path, kind: str, manner: str, bench: Bench) -> dict[str, Any]:
    """Makes one run: the SHA-256 of its weights, its losses, and how many steps this process has made."""
    shape, precision, base = KINDS[kind]
    config = bench.config(shape)
    if not bench.tiny:
        config |= {"num_hidden_layers": LAYERS, "vocab_size": VOCABULARY}
    settings = bench.settings("qwen" if base else "large")
    if base:
        settings = replace(settings, inference=replace(settings.inference, precision=base))
    device = bench.training(precision)
    torch.manual_seed(0)
    if base:
        frozen = random_base(config, base, bench.device)
        if base in QUANTISED and bench.on_gpu:
            settled(frozen, device.half)
        network = decoder_network(with_adapters(frozen, settings), settings, COMPETITION).to(bench.device)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_weights(config, Path(folder), bench.device)
            network = encoder(Path(folder), settings, bench.device)
    asked = {"tokens": bench.lengths[0], "config": config}
    every = ROWS * (STEPS - KILLED + 1)  # the kill falls into an epoch, not between two
    budget = settings.training.batches.tokens_per_batch
    objective = random_rows(every, network.views, asked, bench.device, budget, ROWS)
    draw = np.random.default_rng(1)
    objective.encoded.ids[:] = [each[: draw.integers(8, len(each) + 1)] for each in objective.encoded.ids]
    made = root / _file(root, kind, "checkpoint", "d").name
    if manner == "alone":
        shutil.rmtree(root / f"{made.name}-alone", ignore_errors=True)
        made = root / f"{made.name}-alone"
    checkpoint = Watched(made, kills=manner == "killed")
    training = replace(settings.training, epochs=2)
    record = fit(TrainingRun(network, objective, training, device, checkpoint, kind, steps=STEPS)).record
    digest = hashlib.sha256()
    for name, each in network.named_parameters():
        if each.requires_grad:
            digest.update(name.encode() + each.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {"digest": digest.hexdigest(), "losses": record.losses, "made": checkpoint.made}


def main(root: Path, kind: str, manner: str, bench: Bench) -> None:
    """Makes the run, or the two of a process that is left alone, and writes what came of it."""
    found = [run(root, kind, manner, bench) for _ in range(2 if manner == "alone" else 1)]
    _file(root, kind, manner, "json").write_text(json.dumps(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("kind", choices=list(KINDS))
    parser.add_argument("manner", choices=MANNERS)
    parser.add_argument("device")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    main(given.root, given.kind, given.manner, Bench(given.device, given.tiny))
