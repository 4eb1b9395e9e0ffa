"""Podium's side: the same calls as the stages and the kernel make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.speed.protocol import ROWS_PER_STEP, TOKENS_PER_BATCH, Bench, labels_of
from pipeline.inference.forward import logits_of
from pipeline.inference.open_network import Opened
from pipeline.models.network import Network
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import training_device
from pipeline.training.loop import TrainingRun, fit
from pipeline.training.objectives.supervised import Supervised


def train(bench: Bench, network: Network, seed: int, work: Path, threads: int) -> None:
    """One epoch. No guard watches: it would stop a network that so few rows teach little, and so end the race early."""
    training = bench.settings.training
    labels = labels_of(bench.train)
    encoded = bench.encoded(bench.train)
    pad_id = int(bench.tokenizer.pad_token_id)
    family = bench.competition.family
    rows = Supervised(encoded, labels, family, pad_id, "cpu", ROWS_PER_STEP, TOKENS_PER_BATCH, 0.0, seed)
    device = training_device(training.precision, threads)
    checkpoint = Checkpoint(work / "checkpoint")
    record = fit(TrainingRun(network, rows, training, device, checkpoint, "ours")).record
    assert len(record.losses) == len(rows.epoch(0))
    (checkpoint.folder / "train-state.safetensors").unlink()


def answer(bench: Bench, network: Network, rows: pl.DataFrame) -> np.ndarray:
    """(rows, classes) logits, from texts on."""
    encoded = bench.encoded(rows)
    opened = [Opened(network.eval(), "cpu", lambda: None)]
    classes = len(bench.competition.outputs)
    return logits_of(encoded, opened, int(bench.tokenizer.pad_token_id), TOKENS_PER_BATCH, classes).logits
