"""Base weights that travel once: what fold models share is a Kaggle dataset of its own, named by its contents.

In a package a base is a folder like any other, and MANIFEST.json has the hashes of its files. Under `bases` it says
which folders these are. `make publish` leaves them out of the package's dataset and sends each as one named by its
hash, unless Kaggle has it; the kernel puts it back in its place, and then compares every file with the manifest. A
dataset of a base is never changed, so that old kernel versions go on finding theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifacts import MANIFEST
from pipeline.errors import PodiumError
from pipeline.files import read_json

BASE = "BASE.json"
"""In a base's dataset: its folder in the package, and its files with their hashes. Its own hash names the base."""
CONTENT = "base"
"""In a base's dataset: the folder of its files, or the archive that it was uploaded as."""


def base_text(folder: str, files: Mapping[str, Any]) -> str:
    """Returns BASE.json of the base in `folder`; `files` are those of MANIFEST.json."""
    inside = {name.removeprefix(f"{folder}/"): files[name] for name in sorted(files) if name.startswith(f"{folder}/")}
    return json.dumps({"folder": folder, "files": inside}, indent=2, sort_keys=True) + "\n"


def find_bases(files: Mapping[str, Any]) -> dict[str, str]:
    """Returns folder -> hash of its BASE.json, for every folder of a package that holds shared weights."""
    weights = {name for name in files if name.startswith("pretrained/") and name.endswith(".safetensors")}
    folders = sorted({name.rpartition("/")[0] for name in weights})
    return {folder: hashlib.sha256(base_text(folder, files).encode()).hexdigest() for folder in folders}


def bases_of(package: Path) -> dict[str, str]:
    """Returns folder -> hash of the bases that a package names. Raises: PodiumError for a missing package."""
    if not (package / MANIFEST).is_file():
        raise PodiumError(f"{package / MANIFEST}: no such file; run `dvc repro`")
    bases: dict[str, str] = read_json(package / MANIFEST).get("bases", {})
    return bases


def base_slug(digest: str) -> str:
    """Returns the name of a base's dataset."""
    return f"podium-base-{digest[:16]}"
