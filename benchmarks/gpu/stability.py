"""A short run of deberta-v3-large through the training loop in fp16, beside the same one in bf16."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.bench import HALVES, Bench, Row, tried
from benchmarks.speed.one_shape import encoder, random_rows, write_weights
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loop import TrainingRun, fit

STEPS, ROWS = 40, 8
APART = 0.05
"""Nats that the losses of fp16 and of bf16 may lie apart, on average over the steps."""
SKIPPED = 4
"""Steps that fp16 may lose while its loss scale finds its place."""


def stability(bench: Bench) -> None:
    """A row for each precision: the losses at both ends, the steps skipped, and the distance from the other curve."""
    config, steps = bench.config("deberta-v3-large"), 4 if bench.tiny else STEPS
    tokens = bench.lengths[0] // 2
    # The same rows in every step, so that there is something to learn; checkpoints would be timed as well.
    settings = bench.settings("large")
    training = replace(settings.training, epochs=steps)
    os.environ["PODIUM_CHECKPOINT_SECONDS"] = "1e9"
    curves: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        write_weights(config, Path(folder), bench.device)
        for precision in reversed(HALVES):

            def run(precision: str = precision) -> Row:
                torch.manual_seed(0)
                network = encoder(Path(folder), settings, bench.device)
                asked = {"tokens": tokens, "config": config}
                objective = random_rows(ROWS, 2, asked, bench.device, 2 * ROWS * tokens)
                checkpoint = Checkpoint(Path(folder) / precision)
                device = bench.training(precision)
                record = fit(TrainingRun(network, objective, training, device, checkpoint, precision)).record
                curves[precision] = record.losses
                finite = all(math.isfinite(each) for each in record.losses)
                first, last = (rounded_loss(each) for each in (record.losses[0], record.losses[-1]))
                row: Row = {"steps": len(record.losses), "first loss": first, "last loss": last}
                return row | {"skipped": record.skipped, "kept": finite and record.skipped <= SKIPPED}

            tried(bench, {"precision": precision}, run)
    if len(curves) == len(HALVES):
        apart = float(np.abs(np.subtract(curves["fp16"], curves["bf16"])).mean())
        found = {"apart": rounded_loss(apart), "limit": APART, "kept": apart <= APART}
        tried(bench, {"precision": "fp16 - bf16"}, lambda: found)


def rounded_loss(value: float) -> float:
    return round(value, 4)
