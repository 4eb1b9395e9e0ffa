"""What a fold model says about some rows: the one call behind the out-of-fold predictions and the kernel's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json


def predict_member(folder: Path, rows: pl.DataFrame, competition: Competition) -> np.ndarray:
    """(rows, classes) probabilities of the fold model in `folder`, by the kind that its member.json names.

    Rows sum to 1. An external member gives NaN to a row whose id it does not know.

    Raises: PodiumError for a kind that does not exist.
    """
    kind = read_json(folder / "member.json")["kind"]
    # Each kind brings libraries that the others do without.
    if kind == "tabular":
        from pipeline.models.tabular import load_tabular

        return load_tabular(folder, competition).predict(rows)
    if kind == "external":
        from pipeline.models.external import predict_external

        return predict_external(folder, rows, competition)
    if kind in ("encoder", "decoder"):
        from pipeline.inference.neural import predict_neural

        return predict_neural(folder, rows, competition)
    raise PodiumError(f"{folder / 'member.json'}: kind: expected tabular, external, encoder or decoder, found {kind}")
