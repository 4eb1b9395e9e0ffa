"""Parts of the rows on which a model may do well or badly: length, input, turns, script, near-equality, outcome."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.features import BUDGETS, SCRIPTS, text_features

NEARLY = 0.05
"""Two answers whose lengths differ by less than this share of the longer one are nearly equally long."""

FEWEST_ROWS = 20
"""Smaller parts say nothing about a score."""


def row_slices(rows: pl.DataFrame, labels: np.ndarray, competition: Competition) -> dict[str, dict[str, np.ndarray]]:
    """Returns family -> name -> mask (rows,), without parts of fewer than FEWEST_ROWS rows and without lone parts.

    `rows` has the task's text fields, labels (rows,) are class indices. A family's parts do not overlap.
    """
    task = competition.kind
    features = text_features(rows, task)
    fields = task.fields
    characters = features.select(pl.sum_horizontal(f"{field}_characters" for field in fields)).to_series().to_numpy()
    families = {"length": _lengths(characters), "script": _scripts(features, fields)}
    turns = rows[fields[0]].list.len().fill_null(0).to_numpy()
    families["turns"] = {"one turn": turns <= 1, "two turns": turns == 2, "three turns or more": turns > 2}
    if task.sides:
        first, second = (features[f"{side}_characters"].to_numpy() for side in task.sides)
        near = np.abs(first - second) <= NEARLY * np.maximum(np.maximum(first, second), 1)
        families["input"] = _cut(features, task.sides)
        families["answers' lengths"] = {f"within {NEARLY:.0%}": near, "further apart": ~near}
    if task.decisive:
        decisive = np.isin(labels, task.decisive)
        families["outcome"] = {"somebody won": decisive, "tie": ~decisive}
    large = {
        family: {name: mask for name, mask in parts.items() if mask.sum() >= FEWEST_ROWS}
        for family, parts in families.items()
    }
    return {family: parts for family, parts in large.items() if len(parts) > 1}


def _lengths(characters: np.ndarray) -> dict[str, np.ndarray]:
    """Returns quarters of the rows, the last without its longest twentieth: what an input limit cuts first."""
    edges = [-1, *np.quantile(characters, (0.25, 0.5, 0.75, 0.95)).round().astype(int).tolist()]
    parts = {}
    for low, high in pairwise(edges):
        parts[f"{low + 1:,} to {high:,} characters"] = (characters > low) & (characters <= high)
    return parts | {f"over {edges[-1]:,} characters": characters > edges[-1]}


def _cut(features: pl.DataFrame, sides: tuple[str, str]) -> dict[str, np.ndarray]:
    """Returns rows by how much of them an input of so many words, for the prompt with the longer answer, would hold."""
    small, large = BUDGETS
    beyond = {
        budget: features.select(pl.max_horizontal(f"{side}_beyond_{budget}" for side in sides)).to_series().to_numpy()
        > 0
        for budget in BUDGETS
    }
    return {
        f"fits {small:,} words": ~beyond[small],
        f"cut at {small:,} words": beyond[small] & ~beyond[large],
        f"cut at {large:,} words": beyond[large],
    }


def _scripts(features: pl.DataFrame, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Returns rows by the script with the largest share of their characters."""
    shares = features.select(pl.sum_horizontal(f"{f}_{s}" for f in fields).alias(s) for s in SCRIPTS).to_numpy()
    largest = np.where(shares.any(axis=1), shares.argmax(axis=1), -1)
    parts = {script.replace("_", " "): largest == i for i, script in enumerate(SCRIPTS)}
    return parts | {"no letters": largest == -1}
