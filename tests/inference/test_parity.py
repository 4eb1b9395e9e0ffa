"""Parity: how far a packaged fold model may be from what it said in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.inference.parity import parity_differences, parity_part
from pipeline.inference.predict import predict_member


def test_parity_is_held_to_its_tolerance(package: Path, lmsys: Competition) -> None:
    parity = pl.read_parquet(package / "parity.parquet")
    folder = package / "members/shape/fold1"
    predicted = predict_member(folder, Artifacts(package), parity_part(parity, 1, lmsys), lmsys)
    assert parity_differences(predicted, "shape", 1, parity, "fp32", lmsys).shape == (32, 3)
    column = pl.col("shape/winner_model_a")
    for change, found in (
        (column + 1.5e-4, r"0\.00015"),
        (pl.lit(None, pl.Float64).alias(column.meta.output_name()), "nan"),
    ):
        with pytest.raises(
            PodiumError, match=f"shape fold 1: expected .* within 0.0001, found a difference of {found}"
        ):
            parity_differences(predicted, "shape", 1, parity.with_columns(change), "fp32", lmsys)


def test_half_precision_may_differ_a_little_but_not_lean_one_way(package: Path, lmsys: Competition) -> None:
    parity = pl.read_parquet(package / "parity.parquet")
    names = [f"shape/{name}" for name in lmsys.classes]
    expected = parity.filter(pl.col("fold") == 1).select(names).to_numpy()
    noise = np.random.default_rng(0).normal(scale=1.0e-3, size=expected.shape)
    assert parity_differences(expected + noise, "shape", 1, parity, "fp16", lmsys).max() < 2.0e-2
    some = (np.arange(len(expected)) < 0.15 * len(expected))[:, None]
    for change, found in (
        (3.0e-2 * some, "a difference of"),
        (8.0e-3, "a mean difference of"),
        (some * [1.9e-2, -1.9e-2, 0.0], "an expected loss higher by"),
    ):
        with pytest.raises(PodiumError, match=f"shape fold 1: expected .*, found {found} [0-9]"):
            parity_differences(expected + change, "shape", 1, parity, "fp16", lmsys)


def test_an_unknown_kind_is_named(tmp_path: Path, lmsys: Competition) -> None:
    (tmp_path / "member.json").write_text('{"kind": "forest"}')
    with pytest.raises(PodiumError, match="kind: expected one of tabular, encoder, decoder, external, found forest"):
        predict_member(tmp_path, Artifacts(tmp_path), pl.DataFrame(), lmsys)
