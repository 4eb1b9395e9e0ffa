"""How a network is trained and asked: the parts that encoder and decoder members share in params.yaml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.settings.section import Section
from pipeline.settings.techniques import Awp, Deni, Fgm, Mixout, Proximal, RDrop, Smart

Attention = Literal["fast", "huggingface"]
"""`fast`: our attention in a DeBERTa (pipeline/models/deberta/) and our dropout; `huggingface`: none of ours.

The first gives the same within rounding, the second draws other masks at the same rate."""


class Seeds(Section):
    """Separate streams, so that one can be changed while the others stay."""

    head: int = 0
    """Fresh weights: head, pooling, LoRA."""
    order: int = 0
    """Order of the rows, and the inner slice."""
    dropout: int = 0


class Reference(Section):
    """A rate that is known to work with another number of rows per step, often the one of pre-training."""

    rate: float = Field(gt=0)
    rows: int = Field(ge=1)
    """Per step, at that rate."""
    rule: Literal["linear", "sqrt"] = "sqrt"
    """`linear` in the rows (Goyal et al. 2017, arXiv 1706.02677, for SGD), or in their square root, which suits Adam
    (Malladi et al. 2022, arXiv 2205.10287)."""

    def rate_for(self, rows: int) -> float:
        """The rate for so many rows per step."""
        return self.rate * (rows / self.rows) ** (1.0 if self.rule == "linear" else 0.5)


class Schedule(Section):
    """Learning rate over the optimiser's steps."""

    rate: float = Field(gt=0)
    """At its peak, for the top of the network. Left out where `reference` gives it."""
    reference: Reference | None = None
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


def with_rate(given: Any, usual: Batches) -> Any:
    """`given`, what a section with a schedule and batches is made from, with the rate that `schedule.reference` gives.

    Raises: ValueError where another rate is given as well.
    """
    schedule = given.get("schedule") if isinstance(given, dict) else None
    if not isinstance(schedule, dict) or not schedule.get("reference"):
        return given
    try:
        batches = Batches.model_validate(usual.model_dump() | dict(given.get("batches") or {}))
        rate = Reference.model_validate(schedule["reference"]).rate_for(batches.rows_per_step)
    except (TypeError, ValueError):
        raise ValueError("schedule.reference: expected {rate: …, rows: …, rule: linear or sqrt}") from None
    if schedule.get("rate") not in (None, rate):
        raise ValueError(f"schedule.reference gives a rate of {rate:.3g} already: leave out schedule.rate")
    return given | {"schedule": schedule | {"rate": rate}}


class HeadFirst(Section):
    """Pooling and head learn alone, on the backbone as it came, before all learn together (Kumar et al. 2022, arXiv
    2202.10054). Both phases start with a warmup of their own."""

    epochs: int = Field(default=3, ge=1)
    rate: float = Field(default=1.0e-3, gt=0)


class Training(Section):
    """Fine-tuning of one fold model."""

    epochs: int = Field(default=1, ge=1)
    schedule: Schedule
    batches: Batches = Batches()
    head_rate: float | None = Field(default=None, gt=0)
    """Peak rate of pooling and head; by default that of the schedule."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer's rate is that of the layer above, times this."""
    layer_floor: float = Field(default=1.0, gt=0, le=1)
    """Instead: the embeddings' share of the rate, from which it rises to the top along a cosine."""
    freeze_embeddings: bool = False
    """The table of word embeddings stays as it is: most of a small DeBERTa-v3's weights."""
    reinit_layers: int = Field(default=0, ge=0)
    """Draw that many top layers of the backbone anew, as they were before pre-training (Zhang et al. 2021, arXiv
    2006.05987)."""
    head_first: HeadFirst | None = None
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
    swa: float = Field(default=1.0, ge=0, le=1)
    """Keep the equal mean of the weights after each step from that share of the steps on (Izmailov et al. 2018, arXiv
    1803.05407); 1 for none."""
    runs: int = Field(default=1, ge=1)
    """Train so often from the same fresh weights, in other orders and with other dropout, and keep the mean of the
    weights (Wortsman et al. 2022, arXiv 2203.05482). It costs as many times the training, and nothing in the kernel."""
    inner: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the training rows, whole prompts, on which the best moment is chosen; 0 takes the last."""
    awp: Awp | None = None
    fgm: Fgm | None = None
    smart: Smart | None = None
    proximal: Proximal | None = None
    r_drop: RDrop | None = None
    mixout: Mixout | None = None
    deni: Deni | None = None
    evaluations_per_epoch: int = Field(default=1, ge=1)
    """How often the inner slice is scored."""
    patience: int = Field(default=0, ge=0)
    """Stop after that many evaluations without a better one; 0 never stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass (weights stay fp32). auto: bf16 where the machine computes with it, else fp16 on a GPU."""
    gradient_checkpointing: bool = False
    """Less memory, about a third more time."""
    optimizer_bits: Literal[8, 32] = 32
    """8: AdamW's moments take a quarter of the memory (bitsandbytes); embeddings and small tensors keep 32."""
    seeds: Seeds = Seeds()

    @model_validator(mode="before")
    @classmethod
    def _rate_from_the_reference(cls, given: Any) -> Any:
        return with_rate(given, cls.model_fields["batches"].default)

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if self.patience and not self.inner:
            raise ValueError("patience needs inner > 0: early stopping looks at that slice of the training rows")
        if self.evaluations_per_epoch > 1 and not self.inner:
            raise ValueError("evaluations_per_epoch needs inner > 0: without that slice nothing is evaluated")
        if self.ema and self.swa < 1:
            raise ValueError("ema and swa are two averages of the same weights: choose one")
        if self.smart and self.smart.form == "smart" and self.precision in ("bf16", "fp16"):
            raise ValueError(
                f"smart moves words by less than {self.precision} can tell: use precision fp32, or form sift"
            )
        if self.r_drop and self.dropout == 0:
            raise ValueError("r_drop compares two draws of dropout: with dropout 0 there is nothing to compare")
        if self.fgm and self.fgm.on == "table" and self.freeze_embeddings:
            raise ValueError("fgm.on table follows the table's gradient, and freeze_embeddings leaves none: on output")
        if self.fgm and self.fgm.on == "table" and self.awp:
            raise ValueError(
                "fgm.on table and awp are two attacks on the same step's weights: choose one, or on output"
            )
        if self.mixout and self.reinit_layers:
            raise ValueError("mixout falls back to pretrained weights, and reinit_layers has none: choose one")
        if self.deni and (self.inner or self.ema or self.swa < 1 or self.runs > 1 or self.proximal or self.mixout):
            raise ValueError("deni averages and votes by itself: leave out inner, ema, swa, runs, proximal, mixout")
        if self.layer_decay < 1 and self.layer_floor < 1:
            raise ValueError("layer_decay and layer_floor are two rules for the same rates: choose one")
        if self.reinit_layers and self.head_first:
            raise ValueError("head_first cannot follow reinit_layers: the head would learn from layers without sense")
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
