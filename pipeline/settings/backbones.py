"""Where a network and its tokenizer come from, and how they are trained further on the competition's own text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings.finetuning import Attention, Batches, Schedule, with_rate
from pipeline.settings.section import Section, with_tuples


class Pretrain(Section):
    """Masked (encoders) or causal (decoders) language modelling on the training rows' text without the holdout."""

    epochs: int = Field(default=0, ge=0)
    """0 passes the backbone through unchanged."""
    schedule: Schedule | None = None
    batches: Batches = Batches(rows_per_step=64)
    max_tokens: int = Field(default=256, ge=16)
    """Per sequence."""
    texts: Literal["whole", "cut"] = "whole"
    """`whole`: a longer text becomes several sequences; `cut`: it is cut as for fine-tuning, which is less to read."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that a masked model must guess: drawn anew each time."""
    head_steps: int = Field(default=0, ge=0)
    """Steps that train the fresh head of a masked model alone, before the network."""
    weight_decay: float = Field(default=0.01, ge=0)
    attention: Attention = "fast"
    files: tuple[str, ...] = ()
    """More text, below external/: .txt (one text per line) or .parquet (column `text`)."""
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _rate_from_the_reference(cls, given: Any) -> Any:
        return with_tuples(with_rate(given, cls.model_fields["batches"].default))

    @model_validator(mode="after")
    def _has_a_schedule(self) -> Pretrain:
        if self.epochs and not self.schedule:
            raise ValueError("epochs > 0 needs a schedule, such as {rate: 5.0e-5}")
        return self

    @field_validator("files")
    @classmethod
    def _where_dvc_looks(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for file in files:
            if not file.startswith("external/") or ".." in file or not file.endswith((".txt", ".parquet")):
                raise ValueError("expected .txt or .parquet files under external/, the folder that DVC watches")
        return files


class NoBackbone(Section):
    """The one that tabular and external members name."""

    source: Literal["none"]


class Hub(Section):
    """A repository of the Hugging Face hub."""

    source: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The full commit, so that the same weights come next month."""
    pretrain: Pretrain = Pretrain()


class Folder(Section):
    """A folder in Hugging Face layout: config.json, weights, tokenizer."""

    source: Literal["path"]
    path: str
    pretrain: Pretrain = Pretrain()


class Scratch(Section):
    """A small network with a tokenizer of its own, built from the training rows' text without the holdout."""

    source: Literal["scratch"]
    architecture: Literal["deberta-v3", "llama"]
    vocabulary: int = Field(default=8000, ge=300)
    hidden: int = Field(default=128, ge=16)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    positions: int = Field(default=512, ge=16)
    """Longest distance that position embeddings tell apart (deberta-v3), longest sequence (llama)."""
    seed: int = 0
    pretrain: Pretrain = Pretrain()

    @model_validator(mode="after")
    def _divides(self) -> Scratch:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} must be a multiple of 2 * heads ({2 * self.heads})")
        return self


Backbone = Annotated[NoBackbone | Hub | Folder | Scratch, Field(discriminator="source")]
