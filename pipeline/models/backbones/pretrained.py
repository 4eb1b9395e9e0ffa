"""Where a backbone lies after the stages `backbone` and `pretrain`, and what is known about it; no torch needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file

FACTS = "backbone.json"
POINTER = "unchanged.json"
"""Stands in artifacts/pretrained/<name> in place of a second copy of weights that nothing has changed."""


def base_folder(root: Path, name: str, precision: str = "fp32") -> Path:
    """The folder of backbone `name` below `root` (artifacts, or a package), quantised already where that exists.

    Raises: PodiumError where there is none.
    """
    for folder in (root / "pretrained" / f"{name}-{precision}", root / "pretrained" / name):
        if (folder / POINTER).is_file():
            return root / "backbones" / name
        if (folder / "config.json").is_file():
            return folder
    raise PodiumError(f"{root / 'pretrained' / name}: expected a backbone, found none; run `dvc repro`")


def backbone_facts(root: Path, name: str) -> dict[str, Any]:
    """What the stages wrote down about backbone `name`: family, architecture, positions, sha256 of its contents, ...

    Raises: PodiumError where there is none.
    """
    folder = root / "pretrained" / name
    for file in (folder / POINTER, folder / FACTS):
        if file.is_file():
            facts: dict[str, Any] = read_json(file)
            return facts
    raise PodiumError(f"{folder}: expected a backbone, found none; run `dvc repro`")


def contents_hash(folder: Path) -> str:
    """Hex SHA-256 over the names and bytes of a backbone's files, but for the facts about it."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FACTS):
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest()
