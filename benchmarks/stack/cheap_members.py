"""Members that train in a fraction of a second, on generated rows whose true probabilities are known.

They read no text when they are fitted: text features and hashed words are computed once per set of rows, and neither
learns anything. Each answers with the mean over both orders of the sides, as every member of the pipeline must.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline.competitions.registry import load_competition
from pipeline.data.demo import generate, write
from pipeline.data.features import mirrored_features, text_features
from pipeline.data.rows import joined_turns
from pipeline.ingest.prepare import prepare

COMPETITION = load_competition("lmsys")
MIRROR = list(COMPETITION.kind.mirror or ())
KINDS = ("words", "pairs", "plain", "shape", "length")
LENGTHS = ("characters", "words", "lines")
TREES = {"objective": "multiclass", "num_class": 3, "num_leaves": 7, "learning_rate": 0.1, "min_data_in_leaf": 30}
TREES |= {
    "feature_fraction": 0.2,
    "max_bin": 31,
    "lambda_l2": 10,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "seed": 1,
}


@dataclass(frozen=True)
class Rows:
    """Generated rows with everything that the cheap members and the stack need to know about them."""

    frame: pl.DataFrame
    """id and the text fields."""
    labels: np.ndarray
    truth: np.ndarray
    """(rows, classes) true probabilities."""
    inputs: dict[str, Any]
    """Kind -> (rows, inputs), dense or sparse."""
    mirrored: dict[str, Any]
    """`inputs` of the mirrored rows."""


def draw_rows(count: int, seed: int) -> Rows:
    """Returns new rows of the demo's law, through the real ingest."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(generate(count, 1, seed), folder / "data")
        prepare(folder / "data", COMPETITION, folder / "competition")
        frame = pl.read_parquet(folder / "competition" / "train.parquet")
        truth = pl.read_parquet(folder / "competition" / "truth.parquet").select(COMPETITION.classes).to_numpy()
    inputs, mirrored = _inputs(frame)
    return Rows(frame.drop("label"), frame["label"].to_numpy(), truth, inputs, mirrored)


def _inputs(frame: pl.DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    """All inputs in both orders; what differs between the sides changes sign, and squares tell how much it differs."""
    features = text_features(frame, COMPETITION.kind)
    turned = mirrored_features(features, COMPETITION.kind)
    inputs: dict[str, Any] = {"shape": features.to_numpy()}
    mirrored: dict[str, Any] = {"shape": turned.to_numpy()}
    for kind, names in {"plain": None, "length": LENGTHS}.items():
        chosen = (
            [f"ratio_{name}" for name in names] if names else [n for n in features.columns if n.startswith("ratio_")]
        )
        difference = features.select(chosen).to_numpy()
        inputs[kind] = np.concatenate([difference, np.abs(difference)], axis=1)
        mirrored[kind] = np.concatenate([-difference, np.abs(difference)], axis=1)
    for kind, ngrams in {"words": (1, 1), "pairs": (2, 3)}.items():
        hashing = HashingVectorizer(n_features=2**11, ngram_range=ngrams, alternate_sign=False, norm=None, binary=True)
        first, second = (hashing.transform(joined_turns(frame, side).to_list()) for side in ("a", "b"))
        difference = (first - second).tocsr()
        inputs[kind] = sparse.hstack([difference, abs(difference)], format="csr")
        mirrored[kind] = sparse.hstack([-difference, abs(difference)], format="csr")
    return inputs, mirrored


class Member(ClassifierMixin, BaseEstimator):
    """A cheap member as scikit-learn sees it: its X is a column of row numbers into `rows`."""

    rows: Rows
    """Set on the class before use, so that scikit-learn's clones share it."""

    def __init__(self, kind: str = "words") -> None:
        self.kind = kind

    def fit(self, numbers: np.ndarray, labels: np.ndarray) -> Member:
        """Trains on both orders of the rows `numbers` (rows, 1)."""
        chosen = np.asarray(numbers).ravel()
        self.classes_ = np.arange(3)
        parts = [each[self.kind][chosen] for each in (self.rows.inputs, self.rows.mirrored)]
        table = sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)
        both = np.concatenate([labels, np.array(MIRROR)[labels]])
        if self.kind == "shape":
            self.model_ = lgb.train(TREES, lgb.Dataset(table, label=both), 40)
        else:
            strength = 0.01 if sparse.issparse(table) else 0.05
            self.model_ = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(table, both)
        return self

    def predict_proba(self, numbers: np.ndarray) -> np.ndarray:
        """Returns (rows, 3) probabilities, the mean of both orders."""
        chosen = np.asarray(numbers).ravel()
        return self.ask(
            {self.kind: self.rows.inputs[self.kind][chosen]}, {self.kind: self.rows.mirrored[self.kind][chosen]}
        )

    def predict(self, numbers: np.ndarray) -> np.ndarray:
        """Returns (rows,) the likeliest class; scikit-learn wants every classifier to have it."""
        return self.predict_proba(numbers).argmax(axis=1)

    def ask(self, inputs: dict[str, Any], mirrored: dict[str, Any]) -> np.ndarray:
        """Returns (rows, 3) probabilities for the inputs of any rows in both orders, as `predict_proba` does."""
        straight, turned = (np.asarray(self._forward(each[self.kind])) for each in (inputs, mirrored))
        return (straight + turned[:, MIRROR]) / 2

    def _forward(self, table: Any) -> np.ndarray:
        return self.model_.predict(table) if self.kind == "shape" else self.model_.predict_proba(table)
