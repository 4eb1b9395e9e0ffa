"""Parity: a packaged fold model, asked again about rows of its own fold, must repeat its out-of-fold predictions.

It finds a model that was saved badly, a library that answers differently, and code that drifted since training.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError

EXACT, ROUNDED = 1.0e-4, 2.0e-2
"""Largest absolute difference of a probability, for fp32 and for what computes in half precision or int8."""
ROUNDED_MEAN, ROUNDED_LOSS = 2.0e-3, 1.0e-4
"""In half precision also: largest mean difference, and largest loss: of log loss, were the labels drawn from the
out-of-fold probabilities (their Kullback-Leibler divergence). The true labels do not travel with the package."""
TINY = 1.0e-15


def parity_part(parity: pl.DataFrame, fold: int, competition: Competition) -> pl.DataFrame:
    """Returns the parity rows of `fold`, as a member reads them: id and the text fields."""
    return parity.filter(pl.col("fold") == fold).select("id", *competition.kind.fields)


def parity_differences(
    predicted: np.ndarray, member: str, fold: int, parity: pl.DataFrame, precision: str, competition: Competition
) -> np.ndarray:
    """Returns (rows, classes) absolute differences between `predicted` and the out-of-fold probabilities of `fold`.

    predicted (rows, classes): what the fold model says now about `parity_part`. `parity` has id, fold, the text fields,
    and "<member>/<class>" columns.

    Raises: PodiumError where they are larger than the precision allows, or not a number.
    """
    rows = parity.filter(pl.col("fold") == fold)
    expected = rows.select(f"{member}/{name}" for name in competition.outputs).to_numpy()
    differences = np.abs(predicted - expected)
    exact = computes_exactly(precision)
    _within(differences.max(initial=0.0), EXACT if exact else ROUNDED, "a difference of", member, fold)
    if not exact and len(rows):
        _within(differences.mean(), ROUNDED_MEAN, "a mean difference of", member, fold)
        odds = np.log(np.clip(expected, TINY, 1)) - np.log(np.clip(predicted, TINY, 1))
        _within((expected * odds).sum(axis=1).mean(), ROUNDED_LOSS, "an expected log loss higher by", member, fold)
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
