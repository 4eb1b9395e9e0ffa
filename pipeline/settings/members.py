"""The member kinds of params.yaml that train without a network, and the two that do (see neural.py for their parts)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings.finetuning import Attention, Inference, Lora, Training
from pipeline.settings.recipes import with_recipe
from pipeline.settings.section import Section, with_tuples


class Ngrams(Section):
    """TF-IDF over n-grams of words, or of characters (slow on long texts)."""

    longest: int = Field(ge=1, le=8)
    """N-grams of one up to that many words or characters."""
    max_features: int = Field(ge=1)
    """The commonest are kept."""
    min_df: int = Field(default=3, ge=1)
    """An n-gram must occur in that many texts of the fold's training rows."""


class Logistic(Section):
    """L2-regularised logistic regression; each number is an inverse strength of the penalty."""

    c: float = Field(default=0.5, gt=0)
    """On the weights of n-grams."""
    features_c: float = Field(default=0.002, gt=0)
    """On the weights of the text features, each of unit variance."""
    tie_c: float = Field(default=0.01, gt=0)
    """On the weights of the text features where they tell ties from decisive rows."""


class Boosting(Section):
    """LightGBM; the number of trees is found by early stopping on an inner, group-respecting slice."""

    learning_rate: float = Field(default=0.05, gt=0)
    leaves: int = Field(default=8, ge=2)
    min_rows_in_leaf: int = Field(default=40, ge=1)
    feature_share: float = Field(default=0.3, gt=0, le=1)
    row_share: float = Field(default=0.6, gt=0, le=1)
    l2: float = Field(default=20.0, ge=0)
    max_trees: int = Field(default=600, ge=1)
    patience: int = Field(default=40, ge=1)


class Tabular(Section):
    """A member of kind `tabular`: TF-IDF and text features under a logistic regression or LightGBM."""

    kind: Literal["tabular"]
    backbone: Literal["none"]
    """Said by every member, because dvc.yaml looks up the same key in all of them."""
    model: Literal["logistic", "lightgbm"]
    features: bool = True
    """Use the text features of pipeline/data/features.py."""
    words: Ngrams | None = None
    characters: Ngrams | None = None
    components: int = Field(default=0, ge=0)
    """Reduce TF-IDF to that many singular vectors (LightGBM cannot use the raw matrix); 0 keeps the matrix."""
    logistic: Logistic = Logistic()
    boosting: Boosting = Boosting()
    folds: tuple[int, ...] | None = None
    """Train these folds only; the others write empty parts."""
    seed: int = 0

    @model_validator(mode="after")
    def _has_an_input(self) -> Tabular:
        tfidf = self.words or self.characters
        if not (self.features or tfidf):
            raise ValueError("give the member an input: features, words or characters")
        if self.model == "lightgbm" and tfidf and not self.components:
            raise ValueError("lightgbm needs components > 0 to use words or characters")
        return self


class External(Section):
    """A member of kind `external`: a teammate's predictions, read from a file in external/."""

    kind: Literal["external"]
    backbone: Literal["none"]
    file: str
    """CSV or parquet under external/, see external/README.md: out-of-fold, holdout and test probabilities by id."""
    folds: tuple[int, ...] | None = None

    @field_validator("file")
    @classmethod
    def _where_dvc_looks(cls, file: str) -> str:
        return _below_external(file)


class Neural(Section):
    """What encoders and decoders have in common."""

    backbone: str
    """A key of `backbones`."""
    input: Literal["siamese", "joint"] = "siamese"
    """`siamese`: the prompt with each side, one sequence per side; `joint`: prompt and both sides in one sequence."""
    max_tokens: int = Field(ge=16)
    """Per sequence, special tokens included."""
    head: Literal["plain", "equivariant"] = "plain"
    """`equivariant` (siamese input only): swapping the sides swaps the answer, exactly."""
    training: Training
    inference: Inference = Inference()
    folds: tuple[int, ...] | None = None
    recipe: str | None = None
    """A name in pipeline/settings/recipes/: its settings hold where this member gives none of its own."""

    @model_validator(mode="before")
    @classmethod
    def _over_its_recipe(cls, given: Any) -> Any:
        return with_tuples(with_recipe(given))

    @model_validator(mode="after")
    def _head_fits_the_input(self) -> Neural:
        if self.head == "equivariant" and self.input == "joint":
            raise ValueError("head equivariant needs input siamese; with input joint use training.swap, inference.swap")
        if self.head == "equivariant" and (self.training.swap or self.inference.swap):
            raise ValueError("head equivariant knows both orders already: leave out training.swap and inference.swap")
        return self

    @model_validator(mode="after")
    def _longer_than_the_shorter(self) -> Neural:
        longer = self.inference.long_tokens
        if longer is not None and longer <= self.max_tokens:
            raise ValueError(
                f"inference.long_tokens: expected more than max_tokens ({self.max_tokens}), found {longer}"
            )
        return self


class Encoder(Neural):
    """A member of kind `encoder`: a bidirectional network (DeBERTa), all of it fine-tuned."""

    kind: Literal["encoder"]
    pooling: Literal["mean", "cls", "attention"] = "mean"
    attention: Attention = "fast"
    network: str | None = None
    """A Python file under external/ with one function `build`, in place of pooling and head; docs/network.md."""

    @model_validator(mode="after")
    def _precision_of_encoders(self) -> Encoder:
        if self.inference.precision in ("nf4", "int8"):
            raise ValueError(f"inference.precision {self.inference.precision} is for decoders: use fp32, fp16 or bf16")
        return self

    @field_validator("network")
    @classmethod
    def _python_file(cls, file: str | None) -> str | None:
        return None if file is None else _below_external(file, ".py")


class Decoder(Neural):
    """A member of kind `decoder`: a frozen causal network (Llama, Gemma) with LoRA adapters and a head.

    The precision of inference is that of the base in training, too: an adapter learns on the base that it will meet.
    """

    kind: Literal["decoder"]
    input: Literal["siamese", "joint"] = "joint"
    pooling: Literal["last", "mean"] = "last"
    """What speaks for a sequence: its last token, which alone has seen all of it; or the mean, where a small network
    does not learn to gather an answer in one token."""
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _trains_adapters_alone(self) -> Decoder:
        training = self.training
        if training.reinit_layers:
            raise ValueError("training.reinit_layers is for encoders: adapters cannot train a layer drawn anew")
        if training.freeze_embeddings:
            raise ValueError("training.freeze_embeddings is for encoders: of a decoder only adapters and head learn")
        if training.mixout:
            raise ValueError("training.mixout is for encoders: adapters have no pretrained weights to fall back to")
        if training.fgm and training.fgm.on == "table":
            raise ValueError("training.fgm.on table is for encoders: a decoder's table is frozen; use on output")
        if training.smart and training.smart.space == "normalised":
            raise ValueError("training.smart.space normalised is for encoders: decoders do not normalise embeddings")
        if training.r_drop and not (self.lora.dropout if training.dropout is None else training.dropout):
            raise ValueError("training.r_drop compares two draws of dropout: lora.dropout 0 leaves nothing to compare")
        if training.dropout is not None and self.lora.dropout not in (Lora().dropout, training.dropout):
            raise ValueError(f"training.dropout {training.dropout} replaces every rate: leave out lora.dropout")
        return self


def _below_external(file: str, suffix: str = "") -> str:
    if Path(file).parts[:1] != ("external",) or ".." in Path(file).parts or not file.endswith(suffix):
        raise ValueError(
            f"expected a {suffix + ' ' if suffix else ''}file under external/, the folder that DVC watches"
        )
    return file
