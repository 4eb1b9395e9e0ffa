"""The constant predictor: where a network begins, and what the guard measures it by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.competitions.family import Family


@dataclass(frozen=True)
class Prior:
    """The constant predictor of some rows."""

    family: Family
    labels: np.ndarray
    """Of the rows, as train.parquet has them."""

    @cached_property
    def eta(self) -> np.ndarray:
        """Its natural parameters, (outputs,); 0 where no row tells of an output."""
        return np.nan_to_num(self.family.link(self.family.prior(self.labels)))

    @cached_property
    def loss(self) -> float:
        """Its loss on the rows, in nats per row: what can be won at all."""
        return float(self.losses(self.labels).mean())

    def losses(self, labels: np.ndarray) -> np.ndarray:
        """Returns its loss on each of other rows, (rows,), in nats."""
        means = self.family.means(self.eta)
        return self.family.losses(labels, np.broadcast_to(means, (len(labels), len(means))))
