"""The parts of benchmarks.gpu in the order of their worth, the seconds that each may take, and the packages they need.

Nothing beyond the standard library is imported here: what is missing on a machine shall be told, not run into.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

REQUIRED = (
    *("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "scipy"),
    *("pydantic", "ruamel.yaml", "jinja2"),
)
"""Packages without which nothing runs."""
UNUSED = "polars"
"""A package that modules on the way name and no part calls: a stand-in takes its place where it is missing."""


class Part(NamedTuple):
    """One part of the benchmark."""

    module: str
    function: str
    seconds: float
    """No row begins later than that after the part's begin; half as long after it, the part is ended."""
    needs: tuple[str, ...] = ()
    """Packages beyond the required ones without which it, or some rows of it, are not measured."""


PARTS = {
    "card": Part("bench", "card", 30),
    "parity": Part("parity", "parity", 60),
    "resume": Part("resume", "resume", 100, ("bitsandbytes",)),
    "attention": Part("attention", "attention", 50),
    "deberta": Part("speed", "deberta_large", 60),
    "llama-bf16": Part("speed", "llama_bf16", 80),
    "rivals": Part("rivals", "rivals", 120, ("disentangled_flash", "flashdeberta")),
    "checkpointing": Part("checkpointing", "checkpointing", 40, ("bitsandbytes",)),
    "cudnn": Part("cudnn", "cudnn", 30),
    "stability": Part("stability", "stability", 50),
    "llama-nf4": Part("speed", "llama_nf4", 40, ("bitsandbytes",)),
    "llama-int8": Part("speed", "llama_int8", 40, ("bitsandbytes",)),
}


def missing(packages: tuple[str, ...]) -> list[str]:
    """Returns those that cannot be imported here, as pip names them."""
    found = []
    for name in packages:
        try:
            spec = find_spec(name)
            known = spec is not None and spec.loader is not None  # a stand-in has none
        except ModuleNotFoundError:  # of the package around it
            known = False
        if not known:
            found.append(name.replace("_", "-"))
    return found
