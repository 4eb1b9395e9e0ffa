"""What the kernel is asked: the package opened, the test rows read, the form of the submission known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.ensemble.ladder import Ladder, load_ladder
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.ingest.prepare import read_test
from pipeline.kernel.inputs import KernelInputs
from pipeline.kernel.submission import SubmissionForm, read_form


@dataclass(frozen=True)
class Rows:
    """The rows that fold models are asked about, the same in the supervisor and in every worker."""

    competition: Competition
    frame: pl.DataFrame
    """id and the text fields: the test rows, and after them, in the dress rehearsal, the packaged rows."""
    test_count: int
    """How many of them are test rows."""
    parity: pl.DataFrame
    """The packaged rows with fold and out-of-fold predictions; empty in the scored rerun."""


@dataclass(frozen=True)
class Request:
    """What the supervisor works on, opened once."""

    inputs: KernelInputs
    manifest: dict[str, Any]
    rows: Rows
    form: SubmissionForm
    ladder: Ladder | None
    """None where a rerun could not read it."""

    @property
    def competition(self) -> Competition:
        """The competition of the rows."""
        return self.rows.competition


MADE = "podium-rows.parquet"
"""In place of a test file: rows that were made of others, id and text fields; see full_size.py."""


def open_rows(package: Path, data: Path, rerun: bool) -> Rows:
    """Reads the test file in `data`, and for the dress rehearsal the package's rows."""
    artifacts = Artifacts(package)
    competition = competition_from_json(read_json(artifacts.manifest_file)["competition"])
    columns = ["id", *competition.kind.fields]
    if (data / MADE).is_file():
        test = pl.read_parquet(data / MADE).select(columns)
    else:
        test = read_test(data / competition.test, competition, strict=not rerun).select(columns)
    if rerun:
        return Rows(competition, test, len(test), pl.DataFrame())
    parity = pl.read_parquet(artifacts.parity_file)
    return Rows(competition, pl.concat([test, parity.select(columns)]), len(test), parity)


def open_request(inputs: KernelInputs) -> Request:
    """Reads everything but the members; submission.csv with the prior must exist already, since it gives the form."""
    artifacts = Artifacts(inputs.package)
    rows = open_rows(inputs.package, inputs.data, inputs.rerun)
    form = read_form(inputs.working / "submission.csv", rows.competition)
    try:
        refuse_broken(artifacts.stack, inputs.package, inputs.broken)
        ladder = load_ladder(artifacts.stack, rows.competition)
    except Exception as error:
        if not inputs.rerun:
            raise
        print(f"problem: {message_of(error)}; the members' equal mean is used", flush=True)
        ladder = None
    return Request(inputs, read_json(artifacts.manifest_file), rows, form, ladder)


def refuse_broken(folder: Path, package: Path, broken: Mapping[str, str]) -> None:
    """Raises PodiumError where a file of `folder`, which lies in `package`, is one of those that are broken."""
    for path, problem in broken.items():
        if folder in (package / path).parents:
            raise PodiumError(f"{path}: {problem}")


def message_of(error: BaseException) -> str:
    """Returns an error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
