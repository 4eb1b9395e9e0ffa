"""What the kernel's steps work on: the package opened, the test rows read, the form of the submission known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.competitions.task import Competition, competition_from_json
from pipeline.data.ingest import read_test
from pipeline.ensemble.ladder import Ladder, load_ladder
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.inference.submission import Form, read_form


@dataclass(frozen=True)
class Job:
    """What every step needs, opened once."""

    package: Path
    manifest: dict[str, Any]
    competition: Competition
    rows: pl.DataFrame
    """id and text fields of the test rows."""
    form: Form
    ladder: Ladder | None
    """None where a rerun could not read it."""
    parity: pl.DataFrame
    """Rows with out-of-fold predictions to compare with, used in the dress rehearsal."""
    working: Path
    rerun: bool
    broken: dict[str, str]
    """What is wrong with files of the package, path -> problem; a rerun goes on without them."""


def open_job(package: Path, data: Path, working: Path, rerun: bool, broken: dict[str, str]) -> Job:
    """Reads everything but the members; `working` holds the prior's submission.csv, which gives the form."""
    manifest = read_json(package / "MANIFEST.json")
    competition = competition_from_json(manifest["competition"])
    rows = read_test(data / competition.test, competition, strict=not rerun)
    form = read_form(working / "submission.csv", competition)
    try:
        refuse_broken("stack", broken)
        ladder = load_ladder(package / "stack", competition)
    except Exception as error:
        if not rerun:
            raise
        print(f"problem: {one_line(error)}; the members' equal mean is used", flush=True)
        ladder = None
    parity = pl.DataFrame() if rerun else pl.read_parquet(package / "parity.parquet")
    return Job(package, manifest, competition, rows, form, ladder, parity, working, rerun, broken)


def refuse_broken(folder: str, broken: dict[str, str]) -> None:
    """Raises: PodiumError where a file of `folder` (its path in the package) is broken."""
    for path, problem in broken.items():
        if path.startswith(f"{folder}/"):
            raise PodiumError(f"{path}: {problem}")


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
