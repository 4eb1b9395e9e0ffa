"""Parity: a packaged fold model, asked again about rows of its own fold, must repeat its out-of-fold predictions.

It finds a model that was saved badly, a library that answers differently, and code that drifted since training.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError

EXACT, ROUNDED = 1.0e-4, 2.0e-2
"""Largest absolute difference of a probability, or of a number in units of the training rows' spread: for fp32, and for
what computes in half precision or int8."""
ROUNDED_MEAN, ROUNDED_LOSS = 2.0e-3, 1.0e-4
"""In half precision also: largest mean difference, and largest expected loss, were the labels drawn from the
out-of-fold answers (their divergence). The true labels do not travel with the package."""


def parity_part(parity: pl.DataFrame, fold: int, competition: Competition) -> pl.DataFrame:
    """Returns the parity rows of `fold`, as a member reads them: id and the text fields."""
    return parity.filter(pl.col("fold") == fold).select("id", *competition.kind.fields)


def parity_differences(
    predicted: np.ndarray, member: str, fold: int, parity: pl.DataFrame, precision: str, competition: Competition
) -> np.ndarray:
    """Returns (rows, outputs) absolute differences between `predicted` and the out-of-fold means of `fold`.

    predicted (rows, outputs): what the fold model says now about `parity_part`. `parity` has id, fold, the text fields,
    and "<member>/<output>" columns.

    Raises: PodiumError where they are larger than the precision allows, or not a number.
    """
    rows = parity.filter(pl.col("fold") == fold)
    expected = rows.select(f"{member}/{name}" for name in competition.outputs).to_numpy()
    family = competition.family
    differences = np.abs(predicted - expected if family.bounded else family.link(predicted) - family.link(expected))
    exact = computes_exactly(precision)
    _within(differences.max(initial=0.0), EXACT if exact else ROUNDED, "a difference of", member, fold)
    if not exact and len(rows):
        _within(differences.mean(), ROUNDED_MEAN, "a mean difference of", member, fold)
        loss = family.divergence(expected, predicted).mean()
        _within(loss, ROUNDED_LOSS, "an expected loss higher by", member, fold)
    return differences


def computes_exactly(precision: str) -> bool:
    """Returns whether a member of this precision computes in fp32 here; NF4 does on a CPU, and in fp16 on a GPU."""
    if precision == "nf4":
        import torch  # slow to load, and members without a network do without

        return not torch.cuda.is_available()
    return precision == "fp32"


def _within(found: float, allowed: float, what: str, member: str, fold: int) -> None:
    if not found <= allowed:  # true for NaN as well
        raise PodiumError(
            f"{member} fold {fold}: expected its out-of-fold predictions within {allowed:.3g}, found {what} {found:.3g}"
        )
