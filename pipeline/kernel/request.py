"""What the kernel works on: the package opened, the test rows read, the form of the submission known."""

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
from pipeline.kernel.inputs import Call
from pipeline.kernel.submission import Form, read_form


@dataclass(frozen=True)
class Rows:
    """The rows that fold models are asked about, the same in the supervisor and in every worker."""

    competition: Competition
    frame: pl.DataFrame
    """id and the text fields: the test rows, and after them, in the dress rehearsal, the packaged rows."""
    tested: int
    """How many of them are test rows."""
    parity: pl.DataFrame
    """The packaged rows with fold and out-of-fold predictions; empty in the scored rerun."""


@dataclass(frozen=True)
class Job:
    """What the supervisor needs, opened once."""

    call: Call
    manifest: dict[str, Any]
    rows: Rows
    form: Form
    ladder: Ladder | None
    """None where a rerun could not read it."""

    @property
    def competition(self) -> Competition:
        """The competition of the rows."""
        return self.rows.competition


def open_rows(package: Path, data: Path, rerun: bool) -> Rows:
    """Reads the test file in `data`, and for the dress rehearsal the package's rows."""
    competition = competition_from_json(read_json(package / "MANIFEST.json")["competition"])
    tested = read_test(data / competition.test, competition, strict=not rerun)
    columns = ["id", *competition.kind.fields]
    if rerun:
        return Rows(competition, tested.select(columns), len(tested), pl.DataFrame())
    parity = pl.read_parquet(package / "parity.parquet")
    return Rows(competition, pl.concat([tested.select(columns), parity.select(columns)]), len(tested), parity)


def open_job(call: Call) -> Job:
    """Reads everything but the members; the prior's submission.csv must stand there, which gives the form."""
    rows = open_rows(call.package, call.data, call.rerun)
    form = read_form(call.working / "submission.csv", rows.competition)
    try:
        refuse_broken("stack", call.broken)
        ladder = load_ladder(call.package / "stack", rows.competition)
    except Exception as error:
        if not call.rerun:
            raise
        print(f"problem: {one_line(error)}; the members' equal mean is used", flush=True)
        ladder = None
    return Job(call, read_json(call.package / "MANIFEST.json"), rows, form, ladder)


def refuse_broken(folder: str, broken: dict[str, str]) -> None:
    """Raises: PodiumError where a file of `folder` (its path in the package) is broken."""
    for path, problem in broken.items():
        if path.startswith(f"{folder}/"):
            raise PodiumError(f"{path}: {problem}")


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
