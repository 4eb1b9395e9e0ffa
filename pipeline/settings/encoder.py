"""The settings of a member of kind `encoder`."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.section import Checked, section
from pipeline.settings.finetuning import NetworkSettings
from pipeline.settings.optimisation import Attention
from pipeline.settings.paths import below_external

BUILD = "build"
"""What a custom network's file must define: build(backbone, task, classes) -> torch.nn.Module."""


@section
class Encoder(NetworkSettings):
    """A member of kind `encoder`: a bidirectional network (DeBERTa), all of it fine-tuned."""

    kind: Literal["encoder"]
    head: Literal["plain", "equivariant"] = "plain"
    pooling: Literal["mean", "cls", "attention"] = "mean"
    attention: Attention = "fast"
    network: Annotated[str, Checked(below_external(".py"))] | None = None
    """A Python file under external/ with one function `build`, in place of pooling and head; docs/network.md."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network and self.auxiliary:
            raise ValueError("auxiliary tasks need a head of ours each: leave out network")
        if self.network and self.teachers and self.teachers.cosine:
            raise ValueError("teachers.cosine compares the states that our pooling gives: leave out network")
        if self.training.stable_lora:
            raise ValueError("training.stable_lora is for decoders: all of an encoder learns, without adapters")
        if self.inference.precision in ("nf4", "int8"):
            raise ValueError(f"inference.precision {self.inference.precision} is for decoders: use fp32, fp16 or bf16")

    def files(self) -> dict[str, str]:
        return {"network": self.network} if self.network else {}
