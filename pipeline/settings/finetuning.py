"""How a network is fine-tuned and asked: what encoder and decoder members share in params.yaml."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pipeline.section import Limits, Prepared, section
from pipeline.settings.auxiliary import Auxiliary
from pipeline.settings.member import MemberSettings
from pipeline.settings.optimisation import Batches, RateSchedule, Seeds, with_rate
from pipeline.settings.teachers import Teachers
from pipeline.settings.techniques import (
    Awp,
    Deni,
    Dsgd,
    Fgm,
    Mixout,
    Proximal,
    RDrop,
    Smart,
    Soup,
    StableLora,
    StepTechnique,
    with_values_of_the_form,
)


@section
class HeadFirst:
    """Pooling and head learn alone, on the backbone as it came, before all learn together (Kumar et al. 2022, arXiv
    2202.10054). Both phases start with a warmup of their own."""

    epochs: Annotated[int, Limits(ge=1)] = 3
    rate: Annotated[float, Limits(gt=0)] = 1.0e-3


@section
class Training:
    """Fine-tuning of one fold model."""

    epochs: Annotated[int, Limits(ge=0)] = 1
    """0 (head tokens): the network answers as it came."""
    schedule: RateSchedule
    batches: Batches = Batches()
    head_rate: Annotated[float, Limits(gt=0)] | None = None
    """Peak rate of pooling and head; by default that of the schedule."""
    layer_decay: Annotated[float, Limits(gt=0, le=1)] = 1.0
    """Each layer's rate is that of the layer above, times this."""
    layer_floor: Annotated[float, Limits(gt=0, le=1)] = 1.0
    """Instead: the embeddings' share of the rate, from which it rises to the top along a cosine."""
    freeze_embeddings: bool = False
    """The table of word embeddings stays as it is: most of a small DeBERTa-v3's weights."""
    reinit_layers: Annotated[int, Limits(ge=0)] = 0
    """Draw that many top layers of the backbone anew, as they were before pre-training (Zhang et al. 2021, arXiv
    2006.05987)."""
    head_first: HeadFirst | None = None
    weight_decay: Annotated[float, Limits(ge=0)] = 0.01
    clip: Annotated[float, Limits(gt=0)] = 1.0
    """Largest norm of the gradient."""
    label_smoothing: Annotated[float, Limits(ge=0, lt=1)] = 0.0
    dropout: Annotated[float, Limits(ge=0, lt=1)] | None = None
    """In place of every dropout rate of the backbone's own; 0 switches it off."""
    prior_start: bool = True
    """Begin with the answer that is best for all rows alike, instead of whatever a fresh head says."""
    swap: bool = False
    """Train on each row in both orders of its sides, where they may change places."""
    ema: Annotated[float, Limits(ge=0, le=1)] = 0.0
    """Half-life of the moving average of the weights, as a share of all steps; 0 for none."""
    swa: Annotated[float, Limits(ge=0, le=1)] = 1.0
    """Keep the equal mean of the weights after each step from that share of the steps on (Izmailov et al. 2018, arXiv
    1803.05407); 1 for none."""
    runs: Annotated[int, Limits(ge=1)] = 1
    """Train so often from the same fresh weights, in other orders and with other dropout, and keep the mean of the
    weights (Wortsman et al. 2022, arXiv 2203.05482). It costs as many times the training, and nothing in the kernel."""
    inner: Annotated[float, Limits(ge=0, lt=0.5)] = 0.0
    """Share of the training rows, whole prompts, on which the best moment is chosen; 0 takes the last."""
    awp: Awp | None = None
    fgm: Fgm | None = None
    smart: Annotated[Smart, Prepared(with_values_of_the_form)] | None = None
    proximal: Proximal | None = None
    r_drop: RDrop | None = None
    mixout: Mixout | None = None
    deni: Deni | None = None
    dsgd: Dsgd | None = None
    stable_lora: StableLora | None = None
    soup: Soup | None = None
    evaluations_per_epoch: Annotated[int, Limits(ge=1)] = 1
    """How often the inner slice is scored."""
    patience: Annotated[int, Limits(ge=0)] = 0
    """Stop after that many evaluations without a better one; 0 never stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass (weights stay fp32). auto: bf16 where the machine computes with it, else fp16 on a GPU."""
    gradient_checkpointing: bool = False
    """Less memory, about a third more time."""
    devices: Annotated[int, Limits(ge=1)] = 1
    """GPUs of one machine, or processes where it has none, that share the rows of a step; `tokens_per_batch` is that
    of each. Losses and gradients are those of one within rounding, but for dropout, which draws otherwise."""
    optimizer_bits: Literal[8, 32] = 32
    """8: AdamW's moments take a quarter of the memory (bitsandbytes); embeddings and small tensors keep 32."""
    seeds: Seeds = Seeds()

    def __post_init__(self) -> None:
        if self.patience and not self.inner:
            raise ValueError("patience needs inner > 0: early stopping looks at that slice of the training rows")
        if self.evaluations_per_epoch > 1 and not self.inner:
            raise ValueError("evaluations_per_epoch needs inner > 0: without that slice nothing is evaluated")
        if self.soup and not self.inner:
            raise ValueError("soup needs inner > 0: it is chosen on that slice of the training rows")
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
        if self.deni and self.stable_lora:
            raise ValueError("stable_lora shrinks the network's adapters and deni trains others beside it: choose one")
        if self.devices > 1 and self.deni:
            raise ValueError("deni trains its children on one device, with noise of its own: leave out devices")
        if self.devices > self.batches.rows_per_step:
            raise ValueError(
                f"devices: expected at most batches.rows_per_step ({self.batches.rows_per_step}), of which each takes "
                f"a share, found {self.devices}"
            )
        if self.layer_decay < 1 and self.layer_floor < 1:
            raise ValueError("layer_decay and layer_floor are two rules for the same rates: choose one")
        if self.reinit_layers and self.head_first:
            raise ValueError("head_first cannot follow reinit_layers: the head would learn from layers without sense")

    def without_step_techniques(self) -> Training:
        """Returns these settings with every technique that the loop applies in its steps switched off."""
        off: dict[str, Any] = {name: None for name, each in vars(self).items() if isinstance(each, StepTechnique)}
        return replace(self, **off)


@section
class Inference:
    """How the out-of-fold predictions and the kernel's are computed: the same for both."""

    precision: Literal["fp32", "fp16", "bf16", "nf4", "int8"] = "fp32"
    """nf4 and int8 (bitsandbytes) are for decoders."""
    tokens_per_batch: Annotated[int, Limits(ge=16)] = 16384
    swap: bool = False
    """Answer with the average over both orders of the sides, where they may change places; costs twice the time."""
    long_tokens: int | None = None
    """Rows that max_tokens truncates are read once more, with up to that many tokens; the longer reading replaces the
    shorter."""


@section
class NetworkSettings(MemberSettings):
    """What encoders and decoders have in common."""

    input: Literal["siamese", "joint"] = "siamese"
    """`siamese`: one sequence per side, each with what the sides have in common; `joint`: all fields in one sequence.
    Choices have a sequence per option in any case."""
    max_tokens: Annotated[int, Limits(ge=16)]
    """Per sequence, special tokens included."""
    head: Literal["plain", "equivariant", "tokens"] = "plain"
    """`equivariant` (siamese input only): swapping the sides swaps the answer, or leaves that of a symmetric pair,
    exactly. Choices have a head of their own, to which the order of the options means nothing."""
    training: Annotated[Training, Prepared(lambda given: with_rate(given, Batches()))]
    inference: Inference = Inference()
    auxiliary: Auxiliary | None = None
    """Tasks of other competitions, learned beside the member's own."""
    teachers: Teachers | None = None
    """Members whose answers it learns, of an entry of `students` alone."""
    recipe: str | None = None
    """A name in pipeline/settings/recipes/, with a size where it has some (`qwen3/8b`): its settings hold where this
    member gives none of its own."""

    @property
    def devices(self) -> int:
        return self.training.devices

    def __post_init__(self) -> None:
        if not self.training.epochs and self.head != "tokens":
            raise ValueError("training.epochs: only head tokens answers without training")
        if not self.training.epochs and self.teachers:
            raise ValueError("training.epochs: with 0 nothing is learned from teachers")
        if self.teachers and self.teachers.cosine and self.training.swap:
            raise ValueError("teachers.cosine compares states of rows as they stand: leave out training.swap")
        if self.head == "equivariant" and self.input == "joint":
            raise ValueError("head equivariant needs input siamese; with input joint use training.swap, inference.swap")
        if self.head == "equivariant" and (self.training.swap or self.inference.swap):
            raise ValueError("head equivariant knows both orders already: leave out training.swap and inference.swap")
        longer = self.inference.long_tokens
        if longer is not None and longer <= self.max_tokens:
            raise ValueError(
                f"inference.long_tokens: expected more than max_tokens ({self.max_tokens}), found {longer}"
            )
