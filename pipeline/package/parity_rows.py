"""Rows that travel with the package, so that every fold model can show that it still says what it said in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.rows import field_characters
from pipeline.inference.parity import parity_differences, parity_part
from pipeline.inference.predict import predict_member

ROWS_PER_FOLD = 32
PARITY_SEED = 41


def parity_rows(train: pl.DataFrame, oof: pl.DataFrame, members: list[str], competition: Competition) -> pl.DataFrame:
    """Returns up to 32 rows of each fold, its longest among them: id, fold, texts, "<member>/<output>" out-of-fold.

    `train` has id and the text fields; `oof` has id, fold and members' columns for every row outside the holdout.
    """
    fields = list(competition.kind.fields)
    columns = [f"{member}/{name}" for member in members for name in competition.outputs]
    texts = train.select("id", *fields)
    rows = oof.select("id", "fold", *columns).join(texts, on="id", how="left", maintain_order="left")
    lengths = np.sum(list(field_characters(rows, competition.kind.fields).values()), axis=0)
    folds = rows["fold"].to_numpy()
    chosen: list[int] = []
    for fold in np.unique(folds):
        places = np.flatnonzero(folds == fold)
        longest = places[lengths[places].argmax()]
        others = places[places != longest]
        generator = np.random.default_rng([PARITY_SEED, fold])
        drawn = generator.choice(others, min(len(others), ROWS_PER_FOLD - 1), replace=False)
        chosen += sorted([*drawn, longest])
    return rows[chosen].select("id", "fold", *fields, *columns)


def extra_rows(train: pl.DataFrame, answers: dict[str, pl.DataFrame], fold: int, parity: pl.DataFrame) -> pl.DataFrame:
    """Returns rows in the form of `parity`, with what the members' final refits, or averages, said when they were made.

    `answers`: member -> id and one column per output, for the same ids each. Members without such a model are null.
    `fold` is the number under which the kernel runs them.
    """
    columns = [
        frame.rename({name: f"{member}/{name}" for name in frame.columns if name != "id"})
        for member, frame in answers.items()
    ]
    rows = columns[0].select("id", pl.lit(fold, parity.schema["fold"]).alias("fold"))
    for frame in (train, *columns):
        rows = rows.join(frame, on="id", how="left", maintain_order="left")
    missing = [pl.lit(None, parity.schema[name]).alias(name) for name in parity.columns if name not in rows.columns]
    return rows.with_columns(missing).select(parity.columns)


def reload_and_compare(package: Artifacts, members: dict[str, dict[str, Any]], competition: Competition) -> None:
    """Loads every fold model from the package and compares it with its out-of-fold predictions.

    Raises: PodiumError naming member, fold and difference.
    """
    parity = pl.read_parquet(package.parity_file)
    for name, member in members.items():
        largest = 0.0
        for fold in member["folds"]:
            rows = parity_part(parity, fold, competition)
            predicted = predict_member(package.model(name, fold), package, rows, competition)
            differences = parity_differences(predicted, name, fold, parity, member["precision"], competition)
            largest = max(largest, float(differences.max(initial=0.0)))
        print(f"package: {name}: {len(member['folds'])} fold models reloaded, parity {largest:.1e}", flush=True)
