"""Where a network and its tokenizer come from, and how they are trained further on the competition's own text."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Checked, Limits, Prepared, section
from pipeline.settings.finetuning import Training
from pipeline.settings.optimisation import Attention, Batches, RateSchedule, Seed, Seeds, with_rate
from pipeline.settings.paths import SomePath, below_external


@section
class Pretrain:
    """Masked (encoders) or causal (decoders) language modelling on the training rows' text without the holdout."""

    epochs: Annotated[int, Limits(ge=0)] = 0
    """0 passes the backbone through unchanged."""
    schedule: RateSchedule | None = None
    batches: Batches = Batches(rows_per_step=64)
    max_tokens: Annotated[int, Limits(ge=16)] = 256
    """Per sequence."""
    texts: Literal["whole", "cut"] = "whole"
    """`whole`: a longer text becomes several sequences; `cut`: it is cut as for fine-tuning, which is less to read."""
    masked: Annotated[float, Limits(gt=0, lt=1)] = 0.15
    """Share of the tokens that a masked model must guess: drawn anew each time."""
    head_steps: Annotated[int, Limits(ge=0)] = 0
    """Steps that train the fresh head of a masked model alone, before the network."""
    weight_decay: Annotated[float, Limits(ge=0)] = 0.01
    attention: Attention = "fast"
    files: tuple[Annotated[str, Checked(below_external(".txt", ".parquet"))], ...] = ()
    """More text, below external/: .txt (one text per line) or .parquet (column `text`)."""
    devices: Annotated[int, Limits(ge=1)] = 1
    """As in a member's training."""
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.devices > self.batches.rows_per_step:
            raise ValueError(
                f"devices: expected at most batches.rows_per_step ({self.batches.rows_per_step}), found {self.devices}"
            )
        if self.epochs and not self.schedule:
            raise ValueError("epochs > 0 needs a schedule, such as {rate: 5.0e-5}")

    def as_training(self) -> Training:
        """Returns the settings of the loop: those of fine-tuning, with all that pretraining does without left out."""
        assert self.schedule is not None
        return Training(
            epochs=self.epochs,
            schedule=self.schedule,
            batches=self.batches,
            devices=self.devices,
            weight_decay=self.weight_decay,
            seeds=Seeds(dropout=self.seed),
        )


Pretraining = Annotated[Pretrain, Prepared(lambda given: with_rate(given, Pretrain.batches))]


@section
class NoBackbone:
    """The one that tabular and external members name."""

    source: Literal["none"]


@section
class Hub:
    """A repository of the Hugging Face hub."""

    source: Literal["hub"]
    repository: Annotated[str, Limits(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Annotated[str, Limits(pattern=r"^[0-9a-f]{40}$")]
    """The full commit, so that the same weights come next month."""
    pretrain: Pretraining = Pretrain()


@section
class Folder:
    """A folder in Hugging Face layout: config.json, weights, tokenizer."""

    source: Literal["path"]
    path: SomePath
    pretrain: Pretraining = Pretrain()


@section
class Scratch:
    """A small network with a tokenizer of its own, built from the training rows' text without the holdout."""

    source: Literal["scratch"]
    architecture: Literal["deberta-v3", "llama"]
    vocabulary: Annotated[int, Limits(ge=300)] = 8000
    hidden: Annotated[int, Limits(ge=16)] = 128
    layers: Annotated[int, Limits(ge=1)] = 3
    heads: Annotated[int, Limits(ge=1)] = 4
    positions: Annotated[int, Limits(ge=16)] = 512
    """Longest distance that position embeddings tell apart (deberta-v3), longest sequence (llama)."""
    seed: Seed = 0
    pretrain: Pretraining = Pretrain()

    def __post_init__(self) -> None:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} must be a multiple of 2 * heads ({2 * self.heads})")


Backbone = NoBackbone | Hub | Folder | Scratch
