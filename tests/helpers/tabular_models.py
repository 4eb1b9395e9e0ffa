"""Small tabular members of each kind of model and input."""

from __future__ import annotations

from typing import Any

import polars as pl

from pipeline.competitions.task import Competition
from pipeline.models.tabular.model import TabularModel, fit_tabular
from pipeline.settings.tabular import Tabular
from pipeline.validation import validated

WORD_NGRAMS = {"longest": 2, "max_features": 500, "min_df": 2}
FEW_TREES = {"max_trees": 30, "min_rows_in_leaf": 10}
MODELS: dict[str, dict[str, Any]] = {
    "n-grams, logistic": {"model": "logistic", "features": False, "words": WORD_NGRAMS},
    "everything, logistic": {"model": "logistic", "words": WORD_NGRAMS},
    "characters, logistic": {
        "model": "logistic",
        "features": False,
        "characters": {"longest": 3, "max_features": 300},
    },
    "features, lightgbm": {"model": "lightgbm", "boosting": FEW_TREES},
    "everything, lightgbm": {"model": "lightgbm", "words": WORD_NGRAMS, "components": 8, "boosting": FEW_TREES},
}


BOTH = ["everything, logistic", "everything, lightgbm"]


def fitted(name: str, rows: pl.DataFrame, competition: Competition) -> TabularModel:
    """A member of MODELS, fitted on labelled `rows`."""
    settings = validated(Tabular, {"kind": "tabular", "backbone": "none"} | MODELS[name], name)
    return fit_tabular(rows, rows["label"].to_numpy(), settings, competition, 1)
