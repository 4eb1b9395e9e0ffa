"""TF-IDF over n-grams of words or of characters: scikit-learn's, kept as plain arrays instead of a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

# Words with their apostrophes, punctuation marks, line breaks. Chinese, Japanese, Korean and Thai write long runs
# without spaces: there, each sign is a token.
SIGN = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORDS = rf"[{SIGN}]|[^\W{SIGN}]+(?:'\w+)?|[^\w\s]|\n+"


@dataclass(frozen=True)
class Tfidf:
    """A fitted vocabulary with its inverse document frequencies."""

    unit: str
    """`words` or `characters`."""
    longest: int
    """N-grams of one up to that many units."""
    ngrams: list[str]
    """The n-gram of each column."""
    idf: np.ndarray
    """float64 (columns,)"""

    def transform(self, texts: pl.Series) -> sparse.csr_matrix:
        """Returns (texts, columns) float64: (1 + log count) * idf, each row of length 1 (0 where nothing is known)."""
        if not self.ngrams:
            return sparse.csr_matrix((len(texts), 0))
        return self._vectorizer.transform(texts)

    @cached_property
    def _vectorizer(self) -> TfidfVectorizer:
        rebuilt = _vectorizer(self.unit, self.longest, vocabulary={ngram: i for i, ngram in enumerate(self.ngrams)})
        rebuilt.idf_ = self.idf
        return rebuilt


def fit_tfidf(texts: pl.Series, unit: str, longest: int, max_features: int, min_df: int) -> Tfidf:
    """Learns the `max_features` commonest n-grams of 1 to `longest` units that stand in at least `min_df` texts."""
    fitted = _vectorizer(unit, longest, max_features=max_features, min_df=min_df)
    try:
        fitted.fit(texts)
    except ValueError:  # scikit-learn's word for texts without a single n-gram to keep
        return Tfidf(unit, longest, [], np.empty(0))
    return Tfidf(unit, longest, fitted.get_feature_names_out().tolist(), fitted.idf_)


def _vectorizer(unit: str, longest: int, **options: Any) -> TfidfVectorizer:
    analyzer: dict[str, Any] = {"token_pattern": WORDS} if unit == "words" else {"analyzer": "char"}
    return TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=True, **analyzer, **options)
