"""The settings of a member of kind `tabular`."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Limits, section
from pipeline.settings.member import MemberSettings
from pipeline.settings.optimisation import Seed


@section
class Ngrams:
    """TF-IDF over n-grams of words, or of characters (slow on long texts)."""

    longest: Annotated[int, Limits(ge=1, le=8)]
    """N-grams of one up to that many words or characters."""
    max_features: Annotated[int, Limits(ge=1)]
    """The commonest are kept."""
    min_df: Annotated[int, Limits(ge=1)] = 3
    """An n-gram must occur in that many texts of the fold's training rows."""


@section
class Logistic:
    """L2-regularised logistic regression, of numbers ridge regression. Each number is an inverse strength of the
    penalty: the loss in nats (of numbers half the squared error, in standard deviations) counts that many times.
    """

    c: Annotated[float, Limits(gt=0)] = 0.5
    """On the weights of n-grams."""
    features_c: Annotated[float, Limits(gt=0)] = 0.002
    """On the weights of the text features, each of unit variance."""
    tie_c: Annotated[float, Limits(gt=0)] = 0.01
    """On the weights of the text features where they tell ties from decisive rows, or compare the texts of a pair."""


@section
class Boosting:
    """LightGBM; the number of trees is found by early stopping on an inner, group-respecting slice."""

    learning_rate: Annotated[float, Limits(gt=0)] = 0.05
    leaves: Annotated[int, Limits(ge=2)] = 8
    min_rows_in_leaf: Annotated[int, Limits(ge=1)] = 40
    feature_share: Annotated[float, Limits(gt=0, le=1)] = 0.3
    row_share: Annotated[float, Limits(gt=0, le=1)] = 0.6
    l2: Annotated[float, Limits(ge=0)] = 20.0
    max_trees: Annotated[int, Limits(ge=1)] = 600
    patience: Annotated[int, Limits(ge=1)] = 40


@section
class Tabular(MemberSettings):
    """A member of kind `tabular`: TF-IDF and text features under a linear model or LightGBM."""

    kind: Literal["tabular"]
    backbone: Literal["none"]
    model: Literal["logistic", "lightgbm"]
    """`logistic`: the linear one, which is a ridge regression where the answer is a number."""
    features: bool = True
    """Use the text features of pipeline/data/features.py."""
    words: Ngrams | None = None
    characters: Ngrams | None = None
    components: Annotated[int, Limits(ge=0)] = 0
    """Reduce TF-IDF to that many singular vectors (LightGBM cannot use the raw matrix); 0 keeps the matrix."""
    logistic: Logistic = Logistic()
    boosting: Boosting = Boosting()
    seed: Seed = 0

    def vocabularies(self) -> dict[str, Ngrams]:
        """Returns unit -> the n-grams that the member counts."""
        return {unit: each for unit, each in (("words", self.words), ("characters", self.characters)) if each}

    def __post_init__(self) -> None:
        tfidf = self.words or self.characters
        if not (self.features or tfidf):
            raise ValueError("give the member an input: features, words or characters")
        if self.model == "lightgbm" and tfidf and not self.components:
            raise ValueError("lightgbm needs components > 0 to use words or characters")
