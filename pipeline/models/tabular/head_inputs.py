"""What the heads of a tabular member see: text features and TF-IDF of texts, of two sides, of each option.

Columns that change sign when two sides are exchanged are called odd (differences, log ratios), columns that stay are
called even (sums, absolute differences, overlaps, facts about the other fields).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from pipeline.competitions.task import Task
from pipeline.data.features import compared, competing, measures_of, mirrored_features, text_features
from pipeline.data.rows import joined_turns
from pipeline.models.tabular.tfidf import Tfidf
from pipeline.settings.tabular import Tabular

View: TypeAlias = np.ndarray | sparse.csr_matrix
"""(rows, columns) of n-grams, as they are or reduced."""


class Inputs(NamedTuple):
    """What one head sees of some rows."""

    dense: np.ndarray
    """(rows, columns) float64"""
    ngrams: sparse.csr_matrix | None = None
    """(rows, n-grams) float64, or None where the member uses none or has reduced them to dense columns."""

    def minus(self) -> Inputs:
        """Returns the opposite sign everywhere: the mirror image of odd inputs."""
        return Inputs(-self.dense, None if self.ngrams is None else -self.ngrams)

    def varied(self) -> bool:
        """Returns whether any row can be told from another."""
        return bool(np.ptp(self.dense, axis=0).any() or (self.ngrams is not None and self.ngrams.nnz))

    def take(self, rows: np.ndarray) -> Inputs:
        """Returns the chosen rows."""
        return Inputs(self.dense[rows], None if self.ngrams is None else self.ngrams[rows])


def stacked(inputs: Iterable[Inputs]) -> Inputs:
    """Returns the rows of all `inputs`, one after another."""
    dense, ngrams = zip(*inputs, strict=True)
    return Inputs(np.vstack(dense), None if ngrams[0] is None else sparse.vstack(ngrams, format="csr"))


def ngram_fields(task: Task) -> tuple[str, ...]:
    """Returns the fields whose n-grams are counted; of a prompt, competing answers have the same ones."""
    return task.sides if task.sides and competing(task) else task.fields


def ngram_matrices(rows: pl.DataFrame, task: Task, vocabularies: dict[str, Tfidf]) -> dict[str, sparse.csr_matrix]:
    """Returns field -> TF-IDF: (rows, n-grams of all vocabularies); empty where there is no vocabulary."""
    matrices = {}
    for field in ngram_fields(task) if vocabularies else ():
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
    """Returns the inputs of `winner`, `mirrored winner` and `tie` where sides compete, of each option under its name,
    and of `answer` for all other rows.
    """
    features = _remembered(rows, task) if settings.features else pl.DataFrame()
    if task.sides and competing(task):
        return _competing_inputs(features, len(rows), task, settings, matrices, components)
    views = {field: _reduced(matrix, components) for field, matrix in matrices.items()}
    if task.options:
        return _option_inputs(features, len(rows), task, matrices, views)
    if task.sides:
        return {"answer": _pair_inputs(features, len(rows), task, matrices, views)}
    near = [_near(*pair, matrices, views) for pair in compared(task)] if views else []
    return {"answer": _joined([_floats(features, len(rows)), *near], list(views.values()))}


def _competing_inputs(
    features: pl.DataFrame,
    rows: int,
    task: Task,
    settings: Tabular,
    matrices: dict[str, sparse.csr_matrix],
    components: np.ndarray | None,
) -> dict[str, Inputs]:
    """A logistic winner head gets odd columns only; LightGBM gets every feature, in both orders."""
    first, second = task.sides or ("", "")
    difference = [_reduced(matrices[first] - matrices[second], components)] if matrices else []
    odd, even = _odd_and_even(features, task)
    if settings.model == "logistic":
        winner = _joined([_floats(odd, rows)], difference)
        mirrored = winner.minus()
    else:
        winner = _joined([_floats(features, rows)], difference)
        mirrored = _joined([_floats(mirrored_features(features, task), rows)], [-each for each in difference])
    cosine = [_cosine(matrices[first], matrices[second])] if matrices else []
    return {"winner": winner, "mirrored winner": mirrored, "tie": Inputs(np.hstack([_floats(even, rows), *cosine]))}


def _pair_inputs(
    features: pl.DataFrame, rows: int, task: Task, matrices: dict[str, sparse.csr_matrix], views: dict[str, View]
) -> Inputs:
    """Only even columns where the answer is the same in both orders of the sides, else both sides' own as well."""
    first, second = task.sides or ("", "")
    dense = [_floats(_odd_and_even(features, task)[1] if task.mirror else features, rows)]
    if not views:
        return _joined(dense, [])
    near = {pair: _near(*pair, matrices, views) for pair in combinations((first, second, *task.common), 2)}
    dense.append(near[first, second])
    for field in task.common:
        one, other = near[first, field], near[second, field]
        dense += [one + other, abs(one - other)] if task.mirror else [one, other]
    texts = [views[field] for field in task.common]
    texts += [views[first] + views[second]] if task.mirror else [views[first], views[second]]
    if views[first] is matrices[first]:
        texts += [abs(matrices[first] - matrices[second]), matrices[first].multiply(matrices[second])]
    return _joined(dense, texts)


def _option_inputs(
    features: pl.DataFrame, rows: int, task: Task, matrices: dict[str, sparse.csr_matrix], views: dict[str, View]
) -> dict[str, Inputs]:
    """What an option is: by itself, less the mean of the row's options, and by its rank among them."""
    blocks = []
    for option in task.options:
        own = [_floats(features.select(f"{option}_{name}" for name in measures_of(option, features, task)), rows)]
        if matrices:
            own += [_near(option, field, matrices, views) for field in task.common]
            others = [_near(option, other, matrices, views) for other in task.options if other != option]
            own.append(_mean(np.stack(others, axis=1))[:, 0])
        blocks.append(np.hstack(own))
    block = np.stack(blocks, axis=1)
    rank = sum(np.sign(block - block[:, [place]]) for place in range(len(task.options)))
    table = np.concatenate([block, block - _mean(block), rank], axis=2)
    return {
        option: _joined([table[:, place]], [views[option]] if views else [])
        for place, option in enumerate(task.options)
    }


def _near(first: str, second: str, matrices: dict[str, sparse.csr_matrix], views: dict[str, View]) -> np.ndarray:
    """Returns (rows, 1) cosines of two fields' n-grams, or (rows, 3) with cosines and distances of the reduced ones."""
    one, other, columns = views[first], views[second], [_cosine(matrices[first], matrices[second])]
    if isinstance(one, np.ndarray):
        lengths = np.sqrt(np.square(one).sum(axis=1) * np.square(other).sum(axis=1))
        columns.append((one * other).sum(axis=1) / np.maximum(lengths, 1.0e-9))
        columns.append(np.sqrt(np.square(one - other).sum(axis=1)))
    return np.column_stack(columns)


def _mean(block: np.ndarray) -> np.ndarray:
    """Returns the mean over the second axis, which stays; the same to the last bit in any order of its entries."""
    return np.sort(block, axis=1).mean(axis=1, keepdims=True)


def _odd_and_even(features: pl.DataFrame, task: Task) -> tuple[pl.DataFrame, pl.DataFrame]:
    first, second = task.sides or ("", "")
    odd = [name for name in features.columns if name.startswith(("diff_", "ratio_"))]
    measures = measures_of(first, features, task)
    of_sides = {f"{side}_{name}" for side in (first, second) for name in measures}
    even = features.select(
        *[name for name in features.columns if name not in of_sides.union(odd)],
        *[(pl.col(f"{first}_{name}") + pl.col(f"{second}_{name}")).alias(f"sum_{name}") for name in measures],
        *[pl.col(f"diff_{name}").abs().alias(f"gap_{name}") for name in measures],
    )
    return features.select(odd), even


def _reduced(matrix: sparse.csr_matrix, components: np.ndarray | None) -> View:
    """Returns the n-grams as they are, or as (rows, components) dense columns."""
    return matrix if components is None else np.asarray(matrix @ components.T.astype(np.float64))


def _joined(dense: list[np.ndarray], views: list[View]) -> Inputs:
    """Returns inputs side by side, in one memory order: the last bits of a sum over the rows depend on it."""
    if views and sparse.issparse(views[0]):
        return Inputs(np.ascontiguousarray(np.hstack(dense)), sparse.hstack(views, format="csr"))
    return Inputs(np.ascontiguousarray(np.hstack([*dense, *views])))


def _cosine(first: sparse.csr_matrix, second: sparse.csr_matrix) -> np.ndarray:
    """Returns (rows, 1) products of TF-IDF rows; each vocabulary's are of length 1."""
    return np.asarray(first.multiply(second).sum(axis=1)).reshape(-1, 1)


def _floats(frame: pl.DataFrame, rows: int) -> np.ndarray:
    return frame.to_numpy().astype(np.float64) if frame.width else np.empty((rows, 0))


_LATEST: list[tuple[pl.DataFrame, Task, pl.DataFrame]] = []


def _remembered(rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns `text_features(rows, task)`, kept for the rows seen last: the kernel asks many fold models about them."""
    texts = rows.select(task.fields)
    if not (_LATEST and _LATEST[0][1] == task and _LATEST[0][0].equals(texts)):
        _LATEST[:] = [(texts, task, text_features(texts, task))]
    return _LATEST[0][2]
