"""Before a run: how long it will take and how much disk it needs, from a few timed batches."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import PodiumError
from pipeline.training.device import Device
from pipeline.training.gradients import Learner, gradients, within_memory
from pipeline.training.objective import Objective
from pipeline.training.techniques.deni import updates

TIMED = 3
COPIES = 4
"""Weights, two moments and the copy being replaced: a checkpoint's share of the disk, in sizes of what is trained."""


def forecast(
    network: nn.Module, objective: Objective, settings: dict[str, Any], device: Device, label: str, folder: Path
) -> None:
    """Prints steps, minutes and megabytes of a run; it changes nothing that the run depends on.

    Raises: PodiumError where the disk of `folder` is too small.
    """
    steps = objective.epoch(0)
    batches = sorted((rows for step in steps for rows in step), key=len)
    chosen = [batches[place] for place in np.linspace(0, len(batches) - 1, TIMED + 1).astype(int)]
    network.train()  # as it will be; some spend less memory then
    learner = Learner(network, objective, settings, device, device.scaler(), None)
    with within_memory(label, settings):
        seconds = [_seconds(learner, rows) for rows in chosen]
    network.zero_grad(set_to_none=True)
    # The first one pays for what is set up once.
    per_row = sum(seconds[1:]) / sum(map(len, chosen[1:]))
    epochs = settings["epochs"] * settings.get("runs", 1)
    rows = sum(len(rows) for rows in batches) * epochs
    if settings.get("deni"):
        rows *= updates(len(steps) * epochs, settings["deni"]) / (len(steps) * epochs)
    trained = sum(each.numel() * each.element_size() for each in network.parameters() if each.requires_grad)
    whole = sum(each.numel() * each.element_size() for each in network.parameters())
    needed, free = trained * COPIES + whole, shutil.disk_usage(folder).free
    print(
        f"{label}: {len(steps) * epochs} steps, {len(batches) / len(steps):.1f} batches each; "
        f"about {per_row * rows / 60:.1f} min and {needed / 1e6:.0f} MB ({free / 1e9:.0f} GB free)",
        flush=True,
    )
    if needed > free:
        raise PodiumError(
            f"{label}: needs about {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free; make room"
        )


def _seconds(learner: Learner, rows: np.ndarray) -> float:
    began = time.perf_counter()
    gradients(learner, [rows], 0, 1.0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
