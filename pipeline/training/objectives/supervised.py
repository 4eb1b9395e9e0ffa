"""What a fine-tuned network learns: the answer to each row, from its sequences."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, log_softmax

from pipeline.competitions.family import Categorical, Family, Gaussian
from pipeline.data.batches import epoch_steps, inference_batches
from pipeline.data.split import Lessons
from pipeline.data.text import Encoded
from pipeline.inference.forward import batch_tensors
from pipeline.models.transfer import sent
from pipeline.settings.teachers import Teachers
from pipeline.training.devices.ranks import ALONE, Share
from pipeline.training.objectives.distillation import Lesson, pooled, taught
from pipeline.training.objectives.objective import Batch, Loss


@dataclass(frozen=True)
class Supervised:
    """Rows and labels on a device; see loop.Objective."""

    encoded: Encoded
    labels: np.ndarray
    """As train.parquet has them: class numbers (rows,), or numbers (rows, labels) with NaN where one is not known."""
    family: Family
    pad_id: int
    """The tokenizer's padding id."""
    device: str
    rows_per_step: int
    tokens_per_batch: int
    smoothing: float
    """Share of the target that is spread evenly over the classes, or over yes and no; numbers know none."""
    order: int
    """Seed of the rows' order."""
    lessons: Lessons | None = None
    """What teachers say of the rows, in their order, and how much it counts."""
    teachers: Teachers | None = None
    statistic: np.ndarray | None = None
    """(rows, outputs) what is learned in place of the labels, where some rows have soft ones."""
    weights: np.ndarray | None = None
    """(rows,) what each row's loss counts, where not all count the same."""
    devices: int = 1
    """That share the rows of a batch."""

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.labels) // self.rows_per_step)

    def planned(self, order: int, epochs: int) -> Supervised:
        """Returns the same rows in another order; every epoch of a run is alike."""
        return replace(self, order=order)

    def parts(self, network: nn.Module) -> list[tuple[nn.Module, Supervised]]:
        """Returns `network`, and what it learns."""
        return [(network, self)]

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Returns every row once, in steps of `rows_per_step`."""
        lengths, views = self.encoded.lengths(), self.encoded.views
        sizes, seeds = (self.rows_per_step, self.tokens_per_batch), (self.order, number)
        return epoch_steps(lengths, views, *sizes, seeds, self.devices)

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """Returns the rows' tensors, the same in every step."""
        inputs, targets = batch_tensors(self.encoded, rows, self.pad_id, self.device), self.labels[rows]
        if self.statistic is not None:
            targets = self.statistic[rows].astype(np.float32)
        elif not isinstance(self.family, Categorical):
            targets = self.family.statistic(targets).astype(np.float32)
        weights = None if self.weights is None else sent(self.weights[rows].astype(np.float32), self.device)
        return Batch(inputs, sent(targets, self.device), len(rows), lesson=self._lesson(rows), weights=weights)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The family's loss, and of what is not known none; with teachers also that of what they say.

        With smoothing e the target is (1 - e) t + e / classes (Szegedy et al. 2016), of a label (1 - e) t + e / 2.
        """
        with pooled(network, batch.lesson is not None and batch.lesson.states is not None) as states:
            logits = network(*batch.inputs).float()
        weights = batch.weights
        minimised = plain = self._loss(logits, batch.targets, weights)
        if self.smoothing and isinstance(self.family, Categorical):
            even = summed(-log_softmax(logits, dim=1).mean(dim=1), weights)
            minimised = (1 - self.smoothing) * plain + self.smoothing * even
        elif self.smoothing and not isinstance(self.family, Gaussian):
            even = self._loss(logits, torch.where(batch.targets.isfinite(), 0.5, torch.nan), weights)
            minimised = (1 - self.smoothing) * plain + self.smoothing * even
        if batch.lesson and self.teachers:
            heard = taught(self.family, logits, states, batch.lesson, self.teachers)
            minimised = minimised + summed(heard, weights)
        return Loss(minimised, plain, logits)

    def score(self, network: nn.Module, share: Share = ALONE) -> float:
        """Returns the plain loss of all rows, in nats per row, without dropout or gradients.

        Several ranks share the batches.
        """
        found: list[Tensor] = []
        batches = inference_batches(self.encoded.lengths(), self.encoded.views, self.tokens_per_batch)
        with torch.inference_mode():
            for rows in batches[share.rank :: share.ranks]:
                found.append(self.loss(network, self.batch(rows, 0)).plain)
        total = sum(torch.stack(found).tolist(), 0.0) if found else 0.0  # fetched once: a GPU need not stop for each
        return share.total(total) / len(self.labels)

    def _lesson(self, rows: np.ndarray) -> Lesson | None:
        """Returns what the teachers say of some rows, on the device."""
        if self.lessons is None:
            return None
        states = self.lessons.states
        return Lesson(
            sent(self.lessons.answers[rows], self.device), None if states is None else sent(states[rows], self.device)
        )

    def _loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Returns the sum over the rows of what `Family.losses` says of each; of soft classes the cross entropy."""
        if isinstance(self.family, Categorical):
            if weights is None:
                return cross_entropy(logits, targets, reduction="sum")
            return summed(cross_entropy(logits, targets, reduction="none"), weights)
        known = targets.isfinite()
        truth = torch.where(known, targets, 0.0)
        if isinstance(self.family, Gaussian):
            each = 0.5 * (logits - truth) ** 2
        else:
            each = binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return summed(torch.where(known, each, 0.0).mean(dim=1), weights)


def summed(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Returns the sum over the rows, each by its weight."""
    return losses.sum() if weights is None else (losses * weights).sum()
