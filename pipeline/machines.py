"""The machines that Kaggle lends a kernel, by their names in `package.machine`, and the cards in them.

Standard library alone. A new machine is a row here; see docs/extending.md. Kaggle's list is gated by competition and by
user, which nobody sees before the push: the dress rehearsal on Kaggle stops where it finds other cards than these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import nearest


@dataclass(frozen=True)
class Card:
    """What a network computes on: a kind of GPU, or the CPU."""

    flops: float
    """Sustained FLOP per second."""
    reads: float
    """Bytes of weights per second that are read, converted and brought to the device."""
    memory: float
    """Bytes."""
    bf16: bool = True
    """Whether it computes with bf16; else it does so in a roundabout way, several times as slow."""
    says: str = ""
    """A part of the name that the GPU gives itself."""


CARDS = {
    # Public kernels get 1 (DeBERTa) to 10 (Llama) TFLOPS of a T4, at most 24; see docs/kernel.md.
    "t4": Card(6.0e12, 1.5e8, 1.6e10, bf16=False, says="T4"),
    # Not measured: the T4's figure times the ratio of their data sheets' dense fp16 rates (121, 989 and 500 to 65).
    "l4": Card(1.1e13, 5.0e8, 2.4e10, says="L4"),
    "h100": Card(9.0e13, 5.0e8, 8.5e10, says="H100"),
    "rtx_pro_6000": Card(4.6e13, 5.0e8, 1.0e11, says="RTX PRO 6000"),
    "gpu": Card(2.0e13, 5.0e8, 2.4e10),  # any other
    "cpu": Card(4.0e10, 3.0e8, 3.3e10, says="cpu"),
}
"""By the name that timings of a dress rehearsal are kept under."""


@dataclass(frozen=True)
class Machine:
    """One of Kaggle's machines."""

    shape: str
    """`machine_shape` in kernel-metadata.json, and `--accelerator`; empty without one."""
    card: str
    count: int
    """GPUs in it."""

    @property
    def gpu(self) -> bool:
        """Whether it has any, and so costs hours of the weekly quota."""
        return self.count > 0


MACHINES = {
    "t4x2": Machine("NvidiaTeslaT4", "t4", 2),
    "l4x4": Machine("NvidiaL4", "l4", 4),
    "l4": Machine("NvidiaL4X1", "l4", 1),
    "h100": Machine("NvidiaH100", "h100", 1),
    "rtx_pro_6000": Machine("NvidiaRtxPro6000", "rtx_pro_6000", 1),
    "cpu": Machine("", "cpu", 0),
}

REFUSED = {
    "p100": "Kaggle has retired it and runs t4x2 in its place",
    "t4": "Kaggle lends no single one, t4x2 is the machine",
    "tpu": "Podium computes on no TPU",
}


def known_machine(name: str) -> str:
    """Returns `name`. Raises: ValueError, with the names that there are, where it is none of them."""
    if name in MACHINES:
        return name
    why = next((why for start, why in REFUSED.items() if name == start or name.startswith(f"{start}_")), "")
    raise ValueError(f"expected one of {', '.join(MACHINES)}{f'; {why}' if why else nearest(name, MACHINES)}")


def card_of(model: str) -> str:
    """Returns the key in CARDS of a GPU by the name that it gives itself; `cpu`, `cpu:1` are the CPU."""
    return next((name for name, card in CARDS.items() if card.says and re.search(rf"\b{card.says}\b", model)), "gpu")
