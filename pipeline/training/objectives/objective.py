"""What a network learns, as the loop sees it: rows in steps, their tensors, and what is still to be learned of them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from pipeline.competitions.family import Family
from pipeline.training.objectives.distillation import Lesson


class Batch(NamedTuple):
    """What one forward pass sees."""

    inputs: tuple[Tensor, ...]
    targets: Tensor
    units: int
    """Rows, or tokens to guess: what the loss of a step is an average over."""
    task: str | None = None
    """The auxiliary task that the rows are of."""
    lesson: Lesson | None = None
    """What the teachers say of the rows."""
    weights: Tensor | None = None
    """(rows,) what each row counts, where not all count the same."""


class Loss(NamedTuple):
    """The loss of one batch."""

    minimised: Tensor
    """The sum over the units of what is minimised."""
    plain: Tensor
    """The sum over the units of the plain loss, in nats."""
    logits: Tensor | None = None
    """(rows, outputs), where the rows have answers that count: what the guard and the penalties look at."""


class Objective(Protocol):
    """What is to be learned from which rows."""

    @property
    def family(self) -> Family | None:
        """What an answer to a row is; None where rows have none."""

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Steps of batches of row numbers."""

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """Returns the tensors of some rows, on the device."""

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Returns what the network has still to learn of the batch."""
