"""Parity: a packaged fold model, asked again about rows of its own fold, must repeat its out-of-fold predictions.

It finds a model that was saved badly, a library that answers differently, and code that drifted since training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.inference.predict import predict_member

TOLERANCE = {"fp32": 1.0e-4}
"""Precision -> largest absolute difference of a probability."""


def parity_differences(
    folder: Path, member: str, fold: int, parity: pl.DataFrame, precision: str, competition: Competition
) -> np.ndarray:
    """(rows, classes) absolute differences between the fold model in `folder` and the parity rows of its fold.

    `parity` has id, fold, the text fields, and "<member>/<class>" columns with the out-of-fold probabilities.

    Raises: PodiumError where one is above the precision's tolerance, or is not a number.
    """
    rows = parity.filter(pl.col("fold") == fold)
    fields = list(competition.kind.fields)
    expected = rows.select(f"{member}/{name}" for name in competition.classes).to_numpy()
    differences = np.abs(predict_member(folder, rows.select("id", *fields), competition) - expected)
    largest, allowed = differences.max(initial=0.0), TOLERANCE[precision]
    if not largest <= allowed:  # true for NaN as well
        raise PodiumError(
            f"{member} fold {fold}: expected its out-of-fold predictions within {allowed:g}, "
            f"found a difference of {largest:.3g}"
        )
    return differences
