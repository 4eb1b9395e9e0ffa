"""Folds and holdout: rows that share a first prompt stay together, and every fold has the same share of each class.

python -m stages.folds
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.competitions.task import Task
from pipeline.errors import PodiumError

HOLDOUT = -1
GROUP_CHARACTERS = 400


def group_keys(rows: pl.DataFrame, task: Task) -> pl.Series:
    """One String per row: the group field's first turn in lower case without white space, cut to 400 characters.

    Two rows with equal keys are the same question to a model, whatever their spacing; they must not be parted.
    """
    first = pl.col(task.group).list.first().fill_null("").str.normalize("NFKC").str.to_lowercase()
    return rows.select(first.str.replace_all(r"\s+", "").str.head(GROUP_CHARACTERS)).to_series()


def assign_folds(groups: pl.Series, labels: np.ndarray, folds: int, holdout: float, seed: int) -> np.ndarray:
    """The fold (0 to folds - 1, or -1 for the holdout) of every row, Int8 (rows,).

    Grouped by `groups` and stratified by `labels` (rows,), both for the holdout share and for the folds.

    Raises: PodiumError where there are fewer groups than parts.
    """
    keys = groups.to_physical() if groups.dtype == pl.Categorical else groups.rank("dense")
    codes = keys.to_numpy()
    distinct = len(np.unique(codes))
    parts = folds + (holdout > 0)
    if distinct < parts:
        raise PodiumError(
            f"params.yaml: folds: {folds} folds{' and a holdout' if holdout > 0 else ''} need at least {parts} "
            f"different first prompts, the training rows have {distinct}"
        )
    assigned = np.zeros(len(labels), dtype=np.int8)
    rest = np.arange(len(labels))
    if holdout > 0:
        # A holdout of 10 % is one part in ten; the share is met as nearly as one part of a whole number allows.
        largest_class = int(np.bincount(labels).max())
        kept_out = _parts(codes, labels, max(2, min(round(1 / holdout), distinct, largest_class)), seed)[0]
        assigned[kept_out] = HOLDOUT
        rest = np.setdiff1d(rest, kept_out)
    rarest = min(len(np.unique(codes[rest])), int(np.bincount(labels[rest]).max()))
    if rarest < folds:
        raise PodiumError(
            f"params.yaml: folds: {folds} folds need that many rows of the largest class and that many different "
            f"first prompts beside the holdout, found {rarest}"
        )
    for fold, chosen in enumerate(_parts(codes[rest], labels[rest], folds, seed + 1)):
        assigned[rest[chosen]] = fold
    _assert_no_group_crosses(codes, assigned)
    return assigned


def _parts(codes: np.ndarray, labels: np.ndarray, parts: int, seed: int) -> list[np.ndarray]:
    """Row indices of `parts` disjoint, stratified, grouped parts."""
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer rows than there are parts is spread as far as it goes; prepare has counted the classes.
        warnings.simplefilter("ignore", UserWarning)
        return [chosen for _, chosen in splitter.split(codes, labels, codes)]


def _assert_no_group_crosses(codes: np.ndarray, assigned: np.ndarray) -> None:
    pairs = np.unique(np.stack([codes.astype(np.int64), assigned.astype(np.int64)]), axis=1)
    if pairs.shape[1] != len(np.unique(codes)):
        raise AssertionError("a first prompt stands in two folds: the fold assignment is broken")


@dataclass(frozen=True)
class Split:
    """The rows of one fold model: what it learns from, the fold it is scored on, and the holdout."""

    train: pl.DataFrame
    fold: pl.DataFrame
    holdout: pl.DataFrame


def split_rows(rows: pl.DataFrame, folds: pl.DataFrame, fold: int) -> Split:
    """Parts `rows` (train.parquet) by the table of folds.parquet.

    Raises: PodiumError where the two tables do not hold the same ids in the same order.
    """
    if not rows["id"].equals(folds["id"]):
        raise PodiumError("artifacts/folds.parquet: its ids are not those of train.parquet; run `dvc repro folds`")
    of = folds["fold"]
    return Split(rows.filter((of != fold) & (of != HOLDOUT)), rows.filter(of == fold), rows.filter(of == HOLDOUT))
