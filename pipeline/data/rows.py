"""Normalised rows: what is read off their lists of turns, and their mirror image."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.competitions.task import Task


def swapped(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns the mirror image of every row: the sides have changed places, all else stands. Needs `task.sides`."""
    assert task.sides, "this task has no sides to swap"
    first, second = task.sides
    return rows.with_columns(pl.col(second).alias(first), pl.col(first).alias(second))


def condensed(texts: pl.Expr) -> pl.Expr:
    """Returns texts in lower case without white space: two that are equal so are one question to a model."""
    return texts.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", "")


def joined(field: str) -> pl.Expr:
    """Returns the turns of `field` as one String, with an empty line between them; null turns are left out."""
    return pl.col(field).fill_null([]).list.join("\n\n", ignore_nulls=True)


def joined_turns(rows: pl.DataFrame, field: str) -> pl.Series:
    """Returns the `joined` turns of `field` of every row."""
    return rows.select(joined(field)).to_series()


def field_characters(rows: pl.DataFrame, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns field -> (rows,) float64 number of characters of all its turns."""
    lengths = rows.select(pl.col(field).list.eval(pl.element().str.len_chars()).list.sum() for field in fields)
    return {field: lengths[field].fill_null(0).to_numpy().astype(np.float64) for field in fields}


def by_appearance(codes: np.ndarray) -> np.ndarray:
    """Returns (rows,) the numbers 0, 1, ... in the order in which the codes first appear, whatever their values."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
