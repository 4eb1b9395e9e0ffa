"""Writes what stands beside the package's contents: MANIFEST.json for the kernel, dataset-metadata.json for the CLI."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import DATASET_METADATA, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.files import sha256_file, write_json
from pipeline.kernel.submission import to_distribution

if TYPE_CHECKING:
    from pipeline.ensemble.ladder import Ladder  # the room kaggle writes metadata, and needs no models

MANIFEST_FORMAT = 1
PYTHON = ">=3.11,<3.13"


def write_manifest(
    package: Artifacts, competition: Competition, ladder: Ladder, members: dict[str, dict[str, Any]], budget: int
) -> None:
    """Writes MANIFEST.json over every file that stands in `package` so far; `budget` is in seconds.

    `members` maps a name to its kind, its folds, its precision, and what pipeline/package/workload.py says of it.
    """
    files = sorted(path for path in package.root.rglob("*") if path.is_file())
    names = {path: path.relative_to(package.root).as_posix() for path in files}
    prior = to_distribution(np.array([ladder.prior]))[0]  # a class that never occurred keeps a small share
    write_json(
        package.manifest_file,
        {
            "format": MANIFEST_FORMAT,
            "competition": asdict(competition),
            "prior": dict(zip(competition.outputs, prior.tolist(), strict=True)),
            "members": members,
            "rungs": [
                {"name": rung.name, "members": list(rung.members), "stacker": rung.stacker} for rung in ladder.rungs
            ],
            "budget_seconds": budget,
            "python": PYTHON,
            "wheels": [names[path] for path in files if path.suffix == ".whl"],
            "files": {names[path]: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in files},
        },
    )


def write_metadata(folder: Path, settings: Package) -> None:
    """Writes dataset-metadata.json into `folder`, which the Kaggle CLI reads and does not upload."""
    # The package holds some of the competition's rows, so no open licence can be given.
    licenses = [{"name": "other"}]
    metadata = {"title": settings.title, "id": f"{settings.owner}/{settings.slug}", "licenses": licenses}
    write_json(folder / DATASET_METADATA, metadata)
