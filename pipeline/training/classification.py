"""What a fine-tuned network learns: the class of each row, from its sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

from pipeline.data.batches import epoch_steps, inference_batches
from pipeline.data.text import Encoded
from pipeline.inference.forward import batch_tensors
from pipeline.training.objective import Batch, Loss


@dataclass(frozen=True)
class Classification:
    """Rows and labels on a device; see loop.Objective."""

    encoded: Encoded
    labels: np.ndarray
    """(rows,) class numbers"""
    pad_id: int
    """The tokenizer's padding id."""
    device: str
    rows_per_step: int
    tokens_per_batch: int
    smoothing: float
    order: int
    """Seed of the rows' order."""

    def epoch(self, number: int) -> list[list[np.ndarray]]:
        """Returns every row once, in steps of `rows_per_step`."""
        lengths, views = self.encoded.lengths(), self.encoded.views
        return epoch_steps(lengths, views, self.rows_per_step, self.tokens_per_batch, (self.order, number))

    def batch(self, rows: np.ndarray, step: int) -> Batch:
        """Returns the rows' tensors, the same in every step."""
        inputs = batch_tensors(self.encoded, rows, self.pad_id, self.device)
        return Batch(inputs, torch.from_numpy(self.labels[rows]).to(self.device), len(rows))

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross entropy against (1 - e) onehot + e / classes (Szegedy et al. 2016), and the plain one."""
        logits = network(*batch.inputs).float()
        plain = cross_entropy(logits, batch.targets, reduction="sum")
        if not self.smoothing:
            return Loss(plain, plain, logits)
        uniform = -log_softmax(logits, dim=1).mean(dim=1).sum()
        return Loss((1 - self.smoothing) * plain + self.smoothing * uniform, plain, logits)

    def score(self, network: nn.Module) -> float:
        """Returns plain cross entropy of all rows, in nats per row, without dropout or gradients."""
        total = 0.0
        with torch.inference_mode():
            for rows in inference_batches(self.encoded.lengths(), self.encoded.views, self.tokens_per_batch):
                total += float(self.loss(network, self.batch(rows, 0)).plain)
        return total / len(self.labels)
