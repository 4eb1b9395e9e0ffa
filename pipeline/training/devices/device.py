"""Where a network trains and in what precision: decided once, with the reason."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from pipeline.training.devices.ranks import ALONE, Share, own_share

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(asked: str) -> tuple[Precision, str]:
    """Returns `fp32`, `bf16` or `fp16` for `training.precision` on this machine, and why."""
    if asked != "auto":
        return cast(Precision, asked), "as params.yaml says"
    if torch.cuda.is_available():
        # Turing cards (T4) emulate bf16, slowly; they say that they support it.
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16", "this GPU computes with it"
        return "fp16", "this GPU has no bf16"
    if torch.cpu._is_avx512_bf16_supported():
        return "bf16", "this CPU computes with it"
    return "fp32", "this CPU is no faster with less"


@dataclass(frozen=True)
class Device:
    """One device, the precision of the forward pass on it, and its share of the rows."""

    name: str
    precision: str
    share: Share = ALONE

    @property
    def half(self) -> torch.dtype:
        """The half precision in which a quantised base computes: autocast's, or fp16, which every GPU has."""
        return DTYPES.get(self.precision, torch.float16)

    def forward(self) -> AbstractContextManager[Any]:
        """Returns the context of a forward pass: autocast, or nothing for fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.name.split(":")[0], dtype=DTYPES[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small fp16 gradients from vanishing; does nothing for the other precisions."""
        return torch.amp.GradScaler(self.name.split(":")[0], enabled=self.precision == "fp16", init_scale=2.0**14)


def training_device(precision: str, threads: int) -> Device:
    """Returns the device to train on, set up so that equal runs give equal bits: on a CPU; on a GPU not measured."""
    torch.set_num_threads(threads)
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # the tokenizers library looks at it before its first batch
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Not `warn_only`: attention's gradients would be summed in any order, with a warning.
        torch.use_deterministic_algorithms(True, warn_only=False)
        # It would also write over all memory before its use: a pass over every tensor that changes no result.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        return Device("cuda:0", precision, own_share())
    return Device("cpu", precision, own_share())
