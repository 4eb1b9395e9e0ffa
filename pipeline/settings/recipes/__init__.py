"""Recipes: settings that belong together, by name. A member says `recipe: patient` and overrides what it likes.

Each is a YAML file in this folder, which says where it comes from. That of a family of networks has `sizes`, with what
is a size's own, and names each one's repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import nearest
from pipeline.validation import read_yaml

FOLDER = Path(__file__).parent
PRETRAINED = ("smooth-mlm",)
"""Recipes whose point is a backbone that has been trained on the competition's own text."""


@cache
def recipes() -> Mapping[str, dict[str, Any]]:
    """Returns name -> settings; a family of networks has one for each of its sizes: `qwen3/8b`."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        shared = read_yaml(file)
        for size, own in shared.pop("sizes", {"": {}}).items():
            found["/".join(filter(None, (file.stem, size)))] = _laid_over(shared, own)
    return found


def with_recipe(member: dict[str, Any]) -> dict[str, Any]:
    """Returns `member` (a part of params.yaml) laid over the recipe that it names; as it is where it names none.

    Raises: ValueError for a recipe that does not exist.
    """
    if member.get("recipe") is None:
        return member
    name, known = str(member["recipe"]), recipes()
    if name not in known:
        raise ValueError(f'no recipe "{name}"{nearest(name, known)}, known are {", ".join(known)}')
    return _laid_over(known[name], member)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            result[key] = _laid_over(below[key], above[key])
    return result
