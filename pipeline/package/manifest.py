"""Writes what stands beside the package's contents: MANIFEST.json for the kernel, dataset-metadata.json for the CLI."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.artifacts import DATASET_METADATA, Artifacts
from pipeline.competitions.submission import as_submitted, submission_cells
from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.files import sha256_file, write_json
from pipeline.package.bases import find_bases

if TYPE_CHECKING:
    from pipeline.ensemble.ladder import Ladder  # the room kaggle writes metadata, and needs no models

MANIFEST_FORMAT = 1
PYTHON = ">=3.11,<3.13"


def write_manifest(
    package: Artifacts, competition: Competition, ladder: Ladder, members: dict[str, dict[str, Any]], settings: Package
) -> None:
    """Writes MANIFEST.json over every file that stands in `package` so far.

    `members` maps a name to its kind, its folds, its precision, and what pipeline/package/workload.py says of it.
    """
    files = sorted(path for path in package.root.rglob("*") if path.is_file())
    names = {path: path.relative_to(package.root).as_posix() for path in files}
    prior = as_submitted(np.array([ladder.prior]), competition)  # a class that never occurred keeps a small share
    cells = submission_cells(prior, ladder.rungs[0].decision.apply(prior, competition), competition)
    listed = {names[path]: {"sha256": sha256_file(path), "bytes": path.stat().st_size} for path in files}
    write_json(
        package.manifest_file,
        sealed(
            {
                "format": MANIFEST_FORMAT,
                "competition": asdict(competition),
                "prior": dict(zip(competition.outputs, prior[0].tolist(), strict=True)),
                # What the kernel writes before anything else, with the standard library alone.
                "prior_cells": {column: cell for column, (cell,) in cells.items()},
                "members": members,
                "rungs": [
                    {"name": rung.name, "members": list(rung.members), "stacker": rung.stacker} for rung in ladder.rungs
                ],
                "budget_seconds": settings.budget_seconds,
                "machine": settings.machine,
                "rehearse_rows": settings.rehearse_rows,
                "python": PYTHON,
                "wheels": [names[path] for path in files if path.suffix == ".whl"],
                "bases": find_bases(listed),
                "files": listed,
            }
        ),
    )


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest with the hash of all else in it, by which the kernel's script knows that it is whole."""
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return rest | {"seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def write_metadata(folder: Path, settings: Package) -> None:
    """Writes dataset-metadata.json into `folder`, which the Kaggle CLI reads and does not upload."""
    # The package holds some of the competition's rows, so no open licence can be given.
    licenses = [{"name": "other"}]
    metadata = {"title": settings.title, "id": f"{settings.owner}/{settings.slug}", "licenses": licenses}
    write_json(folder / DATASET_METADATA, metadata)
