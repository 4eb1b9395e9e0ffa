"""The libraries that the kernel brings along as wheels, because Kaggle's image has other versions or lacks them.

`make setup` fetches them once into .venv/wheels. NumPy, SciPy and scikit-learn are the image's and are never replaced;
nor are regex, PyYAML, psutil and torch, which kinds of members need whose other libraries are in pipeline/kinds.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PodiumError
from pipeline.kinds import KINDS

LIBRARIES = ("lightgbm", "narwhals", "polars", "polars-runtime-32", "safetensors")
"""For every package. narwhals is here because LightGBM imports it and the image's scikit-learn need not have it."""

FITTING = re.compile(r"-(py3-none|(cp3\d+|py3)-abi3)-(any|\S*manylinux\S*x86_64)\.whl$")
"""Wheels for every supported Python on Kaggle's machines."""


def find_wheels(folder: Path, lock: Path, kinds: Iterable[str] = ()) -> list[Path]:
    """Returns the wheel of each library that members of these kinds need, at the version that `lock` pins, by name.

    Raises: PodiumError that says what to do where one is missing or fits one Python only.
    """
    if not lock.is_file():
        raise PodiumError(f"{lock}: no such file; `make lock` writes it")
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    names = {*LIBRARIES, *(name for kind in kinds for name in KINDS[kind].wheels)}
    found = []
    for name in sorted(names):
        if name not in pins:
            raise PodiumError(
                f"{lock}: expected a pinned version of {name}, found none; add it to pyproject.toml, `make lock`"
            )
        wheels = sorted(folder.glob(f"{name.replace('-', '_')}-{pins[name]}-*.whl"))
        if not wheels:
            raise PodiumError(f"{folder}: expected a wheel of {name} {pins[name]}, found none; run `make setup`")
        fitting = [path for path in wheels if FITTING.search(path.name)]
        if not fitting:
            raise PodiumError(f"{wheels[0]}: expected a py3-none or abi3 wheel for Linux on x86_64")
        found.append(fitting[0])
    return sorted(found)
