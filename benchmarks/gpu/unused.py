"""polars where it is not installed: modules on the benchmark's way name its types, and no part of it calls it.

A machine without a network gets its packages by hand, and this one is larger than all the others.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from benchmarks.gpu.parts import UNUSED, missing


class _Attributes(type):
    """A class each of whose attributes is the class again."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Named(metaclass=_Attributes):
    """Stands for any class, and for any constant."""


class Unused(ModuleType):
    """A module of such classes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # libraries look for it to see whether they have the package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Named


def stand_in() -> None:
    """Puts something in the place of the package, where it is missing."""
    if UNUSED not in sys.modules and missing((UNUSED,)):
        for name in (UNUSED, f"{UNUSED}.exceptions", f"{UNUSED}.selectors"):
            sys.modules[name] = Unused(name)
