"""What the heads of a tabular member see: text features and TF-IDF, and both again with the sides exchanged.

Columns that change sign with the exchange are called odd (differences, log ratios), columns that stay are called even
(sums, absolute differences, overlaps, facts about the prompt).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse

from pipeline.competitions.task import Task
from pipeline.data.features import mirrored_features, text_features
from pipeline.data.rows import joined_turns
from pipeline.models.tabular.tfidf import Tfidf
from pipeline.settings.tabular import Tabular


class Inputs(NamedTuple):
    """What one head sees of some rows."""

    dense: np.ndarray
    """(rows, columns) float64"""
    ngrams: sparse.csr_matrix | None = None
    """(rows, n-grams) float64, or None where the member uses none or has reduced them to dense columns."""

    def minus(self) -> Inputs:
        """Returns the opposite sign everywhere: the mirror image of odd inputs."""
        return Inputs(-self.dense, None if self.ngrams is None else -self.ngrams)

    def take(self, rows: np.ndarray) -> Inputs:
        """Returns the chosen rows."""
        return Inputs(self.dense[rows], None if self.ngrams is None else self.ngrams[rows])

    def below(self, other: Inputs) -> Inputs:
        """Returns these rows, then those of `other`."""
        ngrams = None if self.ngrams is None else sparse.vstack([self.ngrams, other.ngrams], format="csr")
        return Inputs(np.vstack([self.dense, other.dense]), ngrams)


def ngram_matrices(rows: pl.DataFrame, task: Task, vocabularies: dict[str, Tfidf]) -> dict[str, sparse.csr_matrix]:
    """Returns field -> TF-IDF of each side, or of the one text: (rows, n-grams of all vocabularies); may be empty."""
    matrices = {}
    for field in (task.sides or task.fields) if vocabularies else ():
        texts = joined_turns(rows, field)
        matrices[field] = sparse.hstack([each.transform(texts) for each in vocabularies.values()], format="csr")
    return matrices


def head_inputs(
    rows: pl.DataFrame,
    task: Task,
    settings: Tabular,
    matrices: dict[str, sparse.csr_matrix],
    components: np.ndarray | None,
) -> dict[str, Inputs]:
    """Returns the inputs of `class` for a single text; of `winner`, `mirrored winner` and `tie` for two sides.

    A logistic winner head gets odd columns only; LightGBM gets every feature, in both orders.
    """
    features = _remembered(rows, task) if settings.features else pl.DataFrame()
    if task.sides is None:
        reduced, ngrams = _reduced(matrices.get(task.fields[0]), components, len(rows))
        return {"class": Inputs(np.hstack([_floats(features, len(rows)), reduced]), ngrams)}
    first, second = task.sides
    difference = matrices[first] - matrices[second] if matrices else None
    reduced, ngrams = _reduced(difference, components, len(rows))
    odd, even = _odd_and_even(features, task)
    if settings.model == "logistic":
        winner = Inputs(np.hstack([_floats(odd, len(rows)), reduced]), ngrams)
        mirrored = winner.minus()
    else:
        other = mirrored_features(features, task)
        winner = Inputs(np.hstack([_floats(features, len(rows)), reduced]))
        mirrored = Inputs(np.hstack([_floats(other, len(rows)), -reduced]))
    columns = [_floats(even, len(rows))]
    if matrices:
        columns.append(np.asarray(matrices[first].multiply(matrices[second]).sum(axis=1)).reshape(-1, 1))
    return {"winner": winner, "mirrored winner": mirrored, "tie": Inputs(np.hstack(columns))}


def _odd_and_even(features: pl.DataFrame, task: Task) -> tuple[pl.DataFrame, pl.DataFrame]:
    first, second = (f"{side}_" for side in task.sides or ())
    odd = [name for name in features.columns if name.startswith(("diff_", "ratio_"))]
    about_pair = [name for name in features.columns if not name.startswith(("diff_", "ratio_", first, second))]
    measures = [name.removeprefix(first) for name in features.columns if name.startswith(first)]
    even = features.select(
        *about_pair,
        *[(pl.col(first + name) + pl.col(second + name)).alias(f"sum_{name}") for name in measures],
        *[pl.col(f"diff_{name}").abs().alias(f"gap_{name}") for name in measures],
    )
    return features.select(odd), even


def _reduced(
    matrix: sparse.csr_matrix | None, components: np.ndarray | None, rows: int
) -> tuple[np.ndarray, sparse.csr_matrix | None]:
    """Returns the n-grams as (rows, components) dense columns, or as they are."""
    if matrix is None or components is None:
        return np.empty((rows, 0)), matrix
    return np.asarray(matrix @ components.T.astype(np.float64)), None


def _floats(frame: pl.DataFrame, rows: int) -> np.ndarray:
    return frame.to_numpy().astype(np.float64) if frame.width else np.empty((rows, 0))


_LATEST: list[tuple[pl.DataFrame, pl.DataFrame]] = []


def _remembered(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns `text_features(rows, task)`, kept for the rows seen last: the kernel asks many fold models about them."""
    texts = rows.select(task.fields)
    if not (_LATEST and _LATEST[0][0].equals(texts)):
        _LATEST[:] = [(texts, text_features(texts, task))]
    return _LATEST[0][1]
