"""What one of several processes that train a fold together computes of each step; torch.distributed calls them ranks.

All ranks make the same calls from the same settings and seeds, each with its share of the rows of every step. What they
decide by (gradients, losses, logits, scores) is summed over all of them first, so that all take the same steps and come
to the same end; the first rank alone writes.

Gradients are summed once per step, when they are whole. DistributedDataParallel, which accelerate would wrap around the
network, sums them during a backward pass, of which there must be equally many in all ranks, each after one call of the
network as a whole. A step here has several, of several batches, penalties, attacks and tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed

from pipeline.models.transfer import sent


@dataclass(frozen=True)
class Share:
    """One of several ranks that share the rows of each step; a process of its own has all of them."""

    rank: int = 0
    ranks: int = 1

    @property
    def leads(self) -> bool:
        """Tells whether this rank writes checkpoints and models."""
        return self.rank == 0

    def of(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """Returns this rank's part of each batch, which are sorted by length: every n-th row of n ranks.

        A batch of fewer rows than there are ranks leaves some out.
        """
        return [part for batch in batches if len(part := batch[self.rank :: self.ranks])]

    def total(self, number: float) -> float:
        """Returns the sum of all ranks' numbers."""
        if self.ranks == 1:
            return number
        numbers = torch.tensor([number], dtype=torch.float64)
        distributed.all_reduce(numbers)
        return numbers.item()

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Puts the sum of all ranks' tensors in the place of each, equal in all ranks to the last bit."""
        if self.ranks > 1:
            sums = [distributed.all_reduce(each, async_op=True) for each in tensors]
            for each in sums:
                each.wait()

    def whole(self, own: Tensor, batches: list[np.ndarray]) -> Tensor:
        """Returns what all ranks have found of a step's rows, in the order of `batches`.

        own (rows, numbers) is of this rank's rows, those of `of(batches)`.
        """
        if self.ranks == 1:
            return own
        ends = np.cumsum([len(each) for each in batches])
        places = [np.empty(0, dtype=np.int64), *self.of(np.split(np.arange(ends[-1]), ends[:-1]))]
        found = own.new_zeros(int(ends[-1]), own.shape[1])
        mine = sent(np.concatenate(places), own.device)
        found[mine] = own[: len(mine)]
        self.add_up([found])
        return found


ALONE = Share()


def own_share() -> Share:
    """Returns the share of this process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Share(distributed.get_rank(), distributed.get_world_size())
