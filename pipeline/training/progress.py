"""What a run tells people: how long it will take and how much disk it needs, and, while it runs, how far it is."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from pipeline.errors import PodiumError
from pipeline.settings.finetuning import Training
from pipeline.training.clock import uncounted
from pipeline.training.devices.device import Device
from pipeline.training.gradients import Learner, gradients, within_memory
from pipeline.training.objectives.objective import Objective
from pipeline.training.techniques.deni import updates

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
TIMED = 3
COPIES = 4
"""Weights, two moments and the copy being replaced: a checkpoint's share of the disk, in sizes of what is trained."""


def track(items: Iterable[T], label: str, note: Callable[[], str] = lambda: "", before: int = 0) -> Iterator[T]:
    """Yields `items` while it shows how far they are: with tqdm where stderr is a terminal, else in log lines.

    `note` gives what else there is to say (a loss, a rate); `before` items were done in an earlier run.
    """
    total = len(items) + before if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        with tqdm(items, desc=label, total=total, initial=before, dynamic_ncols=True) as bar:
            for item in bar:
                yield item
                bar.set_postfix_str(note(), refresh=False)
        return
    started = last = time.monotonic()
    done = before
    for done, item in enumerate(items, start=before + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done != total:
            left = f", {(now - started) / (done - before) * (total - done):.0f} s left" if total else ""
            print(f"{label}: {done}/{total or '?'} in {now - started:.0f} s{left}{_after_comma(note())}", flush=True)
            last = now
    print(f"{label}: {done}/{total or done} in {time.monotonic() - started:.0f} s{_after_comma(note())}", flush=True)


def _after_comma(note: str) -> str:
    return f", {note}" if note else ""


def forecast(
    network: nn.Module, objective: Objective, settings: Training, device: Device, label: str, folder: Path
) -> None:
    """Prints steps, minutes and megabytes of a run, from a few timed batches; it changes nothing that the run needs.

    Raises: PodiumError where the disk of `folder` is too small.
    """
    steps = [step for number in range(settings.epochs) for step in objective.epoch(number)]
    batches = sorted((rows for step in steps for rows in step), key=len)
    chosen = [batches[place] for place in np.linspace(0, len(batches) - 1, TIMED + 1).astype(int)]
    network.train()  # as it will be; some spend less memory then
    learner = Learner(network, objective, settings, device, device.scaler())
    with within_memory(label, settings), uncounted():
        moments = room_for_moments(network, settings)
        seconds = [_seconds(learner, rows) for rows in chosen]
    del moments
    network.zero_grad(set_to_none=True)
    # The first one pays for what is set up once.
    per_row = sum(seconds[1:]) / sum(map(len, chosen[1:]))
    total = len(steps) * settings.runs
    rows = float(sum(map(len, batches)) * settings.runs)
    if settings.deni:
        rows *= updates(total, settings.deni) / total
    trained = sum(each.numel() * each.element_size() for each in network.parameters() if each.requires_grad)
    whole = sum(each.numel() * each.element_size() for each in network.parameters())
    copies = COPIES + (
        2 * settings.soup.moments if settings.soup else 0
    )  # in the checkpoint, and in the one it replaces
    needed, free = trained * copies + whole, shutil.disk_usage(folder).free
    print(
        f"{label}: {total} steps, {len(batches) / len(steps):.1f} batches each; "
        f"about {per_row * rows / 60:.1f} min and {needed / 1e6:.0f} MB ({free / 1e9:.0f} GB free)",
        flush=True,
    )
    if needed > free:
        raise PodiumError(
            f"{label}: needs about {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free; make room"
        )


def room_for_moments(network: nn.Module, settings: Training) -> list[torch.Tensor]:
    """Returns as much memory as AdamW takes with its first step, so that a run that is too large shows it before."""
    size = 2 * settings.optimizer_bits // 8
    weights = [each for each in network.parameters() if each.requires_grad]
    return [torch.empty(size * each.numel(), dtype=torch.uint8, device=each.device) for each in weights]


def _seconds(learner: Learner, rows: np.ndarray) -> float:
    began = time.perf_counter()
    gradients(learner, [rows], 0, 1.0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
