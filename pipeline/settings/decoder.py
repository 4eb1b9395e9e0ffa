"""The settings of a member of kind `decoder`."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Limits, section
from pipeline.settings.finetuning import NetworkSettings


@section
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on every linear layer of the base."""

    rank: Annotated[int, Limits(ge=1)] = 16
    alpha: Annotated[float, Limits(gt=0)] = 32.0
    dropout: Annotated[float, Limits(ge=0, lt=1)] = 0.05


@section
class Decoder(NetworkSettings):
    """A member of kind `decoder`: a frozen causal network (Llama, Gemma) with LoRA adapters and a head.

    The precision of inference is that of the base in training, too: an adapter learns on the base that it will meet.
    """

    kind: Literal["decoder"]
    input: Literal["siamese", "joint"] = "joint"
    pooling: Literal["last", "mean"] = "last"
    """What speaks for a sequence: its last token, which alone has seen all of it; or the mean, where a small network
    does not learn to gather an answer in one token."""
    head: Literal["plain", "equivariant", "tokens"] = "plain"
    """`tokens`: the probabilities of a few answer tokens of the network's own language head, in its chat template;
    nothing but a bias per answer is fresh. It reads all fields in one sequence, and of choices one per option."""
    lora: Lora = Lora()

    def __post_init__(self) -> None:
        super().__post_init__()
        training = self.training
        if self.head == "tokens":
            if self.input != "joint":
                raise ValueError("head tokens reads a row as one prompt: use input joint")
            if self.pooling != "last":
                raise ValueError("head tokens answers where the prompt ends: use pooling last")
            if self.auxiliary:
                raise ValueError("auxiliary tasks need a fresh head each: leave out head tokens")
            if training.head_first:
                raise ValueError("training.head_first trains a fresh head alone: leave it out with head tokens")
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
