"""Logits of encoded rows, on one device or on several side by side: batches, memory that runs out, values that do."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.data.batches import cut_by_budget, inference_batches, pad
from pipeline.data.text import Encoded
from pipeline.errors import NoMemoryError, ran_out
from pipeline.inference.open_network import Opened
from pipeline.inference.precision import computes_in_fp32, in_fp32
from pipeline.models.deberta.packing import LENGTHS
from pipeline.models.shared_prefix import PREFIXES, common_prefixes
from pipeline.models.transfer import sent


@dataclass(frozen=True)
class Answered:
    """What the networks said, and what it took."""

    logits: np.ndarray
    """(rows, outputs) float32; a row whose logits are not finite even in fp32 is NaN."""
    rescued: int
    """Rows that were computed again in fp32."""
    budget: int
    """Tokens per batch at the end: less than at the beginning where memory ran out."""


def logits_of(encoded: Encoded, networks: list[Opened], pad_id: int, budget: int, outputs: int) -> Answered:
    """Asks the networks about all rows; each takes the next batch when it is free. One that fails stops all.

    Where a batch does not fit the memory, the budget is halved until the batch falls apart, down to single rows.

    Raises: NoMemoryError where a single row does not fit.
    """
    run = _Run(encoded, pad_id, budget, np.full((len(encoded), outputs), np.nan, dtype=np.float32))
    if len(networks) == 1:
        run.work(networks[0])
    else:
        threads = [threading.Thread(target=run.work, args=(each,)) for each in networks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if run.failures:
        raise run.failures[0]
    run.logits[~np.isfinite(run.logits).all(axis=1)] = np.nan
    return Answered(run.logits, run.rescued, run.budget)


class _Run:
    """The batches that wait, shared by the threads of all devices."""

    def __init__(self, encoded: Encoded, pad_id: int, budget: int, logits: np.ndarray) -> None:
        self.encoded, self.pad_id, self.budget, self.logits = encoded, pad_id, budget, logits
        self.lengths = encoded.lengths()
        self.waiting = deque(inference_batches(self.lengths, encoded.views, budget))
        self.rescued = 0
        self.failures: list[BaseException] = []
        self.lock = threading.Lock()

    def work(self, opened: Opened) -> None:
        """Takes batches until none waits, or until a device has failed."""
        exact = computes_in_fp32(opened.network)
        try:
            while not self.failures:
                with self.lock:
                    if not self.waiting:
                        return
                    rows = self.waiting.popleft()
                try:
                    self.logits[rows] = logits = self._asked(opened, rows)
                    overflown = rows[~np.isfinite(logits).all(axis=1)]
                    if len(overflown) and not exact:
                        self._rescue(opened, overflown)
                    continue
                except Exception as error:
                    if not ran_out(error):
                        raise
                # Only behind this block is what the batch held free.
                self._split(rows, opened.device)
        except BaseException as error:
            self.failures.append(error)

    def _asked(self, opened: Opened, rows: np.ndarray) -> np.ndarray:
        return batch_logits(opened.network, self.encoded, rows, self.pad_id, opened.device).cpu().numpy()

    def _rescue(self, opened: Opened, rows: np.ndarray) -> None:
        """Asks the same rows in fp32, by halves where they do not fit: all other batches keep their budget.

        A single one that does not fit the memory there is left without an answer.
        """
        try:
            with in_fp32(opened.network):
                self.logits[rows] = self._asked(opened, rows)
            with self.lock:
                self.rescued += len(rows)
            return
        except Exception as error:
            if not ran_out(error):
                raise
        empty_cache(opened.device)
        if len(rows) > 1:
            for half in np.array_split(rows, 2):
                self._rescue(opened, half)

    def _split(self, rows: np.ndarray, device: str) -> None:
        """Puts a batch that did not fit back among the waiting ones, all cut anew under a smaller budget."""
        if len(rows) == 1:
            raise NoMemoryError(
                f"out of memory on {device} with a single row of {self.lengths[rows[0]]} tokens per batch; "
                "lower max_tokens (or inference.long_tokens)"
            )
        empty_cache(device)
        with self.lock:
            views = self.encoded.views
            # Not at all where another device's failure has halved it already.
            while len(cut_by_budget(rows, self.lengths, views, self.budget)) == 1:
                self.budget //= 2
            left = np.concatenate([rows, *self.waiting])
            left = left[np.argsort(-self.lengths[left], kind="stable")]
            self.waiting = deque(cut_by_budget(left, self.lengths, views, self.budget))


def empty_cache(device: str) -> None:
    """Gives back what torch holds of a GPU's memory in pieces that are of no use."""
    if device != "cpu":
        torch.cuda.empty_cache()


def batch_logits(network: nn.Module, encoded: Encoded, rows: np.ndarray, pad_id: int, device: str) -> torch.Tensor:
    """Returns (rows, outputs) logits of some rows, without gradients."""
    with torch.inference_mode():
        return network(*batch_tensors(encoded, rows, pad_id, device)).float()


def batch_tensors(encoded: Encoded, rows: np.ndarray, pad_id: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (rows * views, length) ids and mask of some rows."""
    sequences = [encoded.ids[row * encoded.views + view] for row in rows for view in range(encoded.views)]
    ids, mask = (sent(each, device) for each in pad(sequences, pad_id))
    setattr(mask, LENGTHS, np.array([len(each) for each in sequences]))
    setattr(mask, PREFIXES, common_prefixes(sequences, encoded.views))
    return ids, mask
