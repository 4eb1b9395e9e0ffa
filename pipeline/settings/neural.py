"""How a network is trained and asked: the parts that encoder and decoder members share in params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.settings.section import Section

Attention = Literal["fast", "huggingface"]
"""Of DeBERTa: ours (pipeline/models/disentangled.py), or that of transformers, which gives the same within rounding."""


class Seeds(Section):
    """Separate streams, so that one can be changed while the others stay."""

    head: int = 0
    """Fresh weights: head, pooling, LoRA."""
    order: int = 0
    """Order of the rows, and the inner slice."""
    dropout: int = 0


class Schedule(Section):
    """Learning rate over the optimiser's steps."""

    rate: float = Field(gt=0)
    """At its peak, for the top of the network."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the rate rises from 0."""
    decay: Literal["linear", "cosine", "exponential", "none"] = "linear"
    """From the peak to 0 (linear, cosine), or by `decay_per_epoch` in each epoch."""
    decay_per_epoch: float = Field(default=0.5, gt=0, le=1)


class Batches(Section):
    """What a step of the optimiser sees, and how much of it stands in memory at a time."""

    rows_per_step: int = Field(default=32, ge=1)
    tokens_per_batch: int = Field(default=8192, ge=16)
    """Padding included. Lower it where memory runs out: a step is then put together from more batches, and learns the
    same."""


class Training(Section):
    """Fine-tuning of one fold model."""

    epochs: int = Field(default=1, ge=1)
    schedule: Schedule
    batches: Batches = Batches()
    head_rate: float | None = Field(default=None, gt=0)
    """Peak rate of pooling and head; by default that of the schedule."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer's rate is that of the layer above, times this."""
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """In place of every dropout rate of the backbone's own; 0 switches it off."""
    swap: bool = False
    """Train on each row in both orders of its sides."""
    ema: float = Field(default=0.0, ge=0, le=1)
    """Half-life of the moving average of the weights, as a share of all steps; 0 for none."""
    inner: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the training rows, whole prompts, on which the best moment is chosen; 0 takes the last."""
    evaluations_per_epoch: int = Field(default=1, ge=1)
    """How often the inner slice is scored."""
    patience: int = Field(default=0, ge=0)
    """Stop after that many evaluations without a better one; 0 never stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass (weights stay fp32). auto: bf16 where the machine computes with it, else fp16 on a GPU."""
    gradient_checkpointing: bool = False
    """Less memory, about a third more time."""
    seeds: Seeds = Seeds()

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if self.patience and not self.inner:
            raise ValueError("patience needs inner > 0: early stopping looks at that slice of the training rows")
        return self


class Inference(Section):
    """How the out-of-fold predictions and the kernel's are computed: the same for both."""

    precision: Literal["fp32", "fp16", "bf16", "nf4", "int8"] = "fp32"
    """nf4 and int8 (bitsandbytes) are for decoders."""
    tokens_per_batch: int = Field(default=16384, ge=16)
    swap: bool = False
    """Answer with the average over both orders of the sides; costs twice the time."""
    long_tokens: int | None = None
    """Rows that max_tokens truncates are read once more, with up to that many tokens; the longer reading replaces the
    shorter."""


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on every linear layer of the base."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
