"""One kernel in the rerun's manner: an input tree that may be damaged, the script's run, and what a grader says of it.

pipeline/package/faults.py damages scenes, pipeline/package/try_faults.py and the benchmark of the deadline run them.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.artifacts import MANIFEST
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file, write_json
from pipeline.ingest.cells import plain_rows, read_header
from pipeline.ingest.tables import OTHERS
from pipeline.kernel.submission import validate_submission
from pipeline.package.manifest import sealed
from pipeline.package.rehearse import KERNEL

ROWS = 24
"""Test rows of a scene: enough for every rung, few enough for a network."""
SAMPLE = "sample_submission.csv"


@dataclass(frozen=True)
class Ran:
    """What one kernel did."""

    code: int
    """Its exit code; that of a killed process is negative."""
    seconds: float
    log: str
    """What it wrote to both of its standard streams."""


def run_script(
    inputs: Path, working: Path, rerun: bool, limit: float, environment: dict[str, str], shell: str = '"$@"'
) -> Ran:
    """Runs the kernel's script with almost nothing of our environment; after `limit` seconds it is killed.

    `shell` is bash in which `"$@"` stands for the script.
    """
    bare = {"PATH": os.environ["PATH"], "PODIUM_INPUT": str(inputs), "PODIUM_WORKING": str(working)} | environment
    if rerun:
        bare["KAGGLE_IS_COMPETITION_RERUN"] = "1"
    command = [shutil.which("bash") or "bash", "-c", shell, "bash", sys.executable, str(KERNEL.resolve())]
    began = time.monotonic()
    with subprocess.Popen(
        command,
        env=bare,
        cwd=inputs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            log, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            log, _ = process.communicate()
    return Ran(process.returncode, time.monotonic() - began, log)


@dataclass(frozen=True)
class Given:
    """A finished package, and a test file and a sample submission of a few rows in the competition's own form."""

    package: Path
    manifest: dict[str, Any]
    competition: Competition
    header: list[str]
    rows: list[list[str]]
    """Cells of the test file; an id is at `place`."""
    sample: list[list[str]]
    """Header and rows of the sample submission, in its own order of columns."""
    data: Path
    """Where the competition's files lie."""

    @property
    def place(self) -> int:
        """Where in a row of the test file the id stands."""
        return self.header.index(self.competition.id)

    @property
    def texts(self) -> list[int]:
        """Where in a row of the test file the texts stand that are its own."""
        return [self.header.index(column) for column in self.competition.texts.values() if column in self.header]

    @property
    def is_csv(self) -> bool:
        """Whether the test file is a CSV file, and no JSON or parquet."""
        return Path(self.competition.test).suffix not in OTHERS


def read_given(package: Path, data: Path) -> Given:
    """Reads a package's manifest and the first rows of the competition's test file; fewer are repeated under new ids.

    Raises: PodiumError where there is no package, or the competition's files cannot be read.
    """
    if not (package / MANIFEST).is_file():
        raise PodiumError(f"{package}: no package here; `make repro` first, or name a run with --run")
    manifest = read_json(package / MANIFEST)
    competition = competition_from_json(manifest["competition"])
    test = data / competition.test
    own = competition.as_filed()  # what other files bring is not written into this one
    header = read_header(test, own)
    found = list(islice(plain_rows(test, own, strict=True, most=ROWS), ROWS))
    if not found:
        raise PodiumError(f"{test}: expected rows, found none")
    place, rows = header.index(competition.id), list(found)
    while len(rows) < ROWS:
        row = list(found[len(rows) % len(found)])
        row[place] = f"9{len(rows):03d}{row[place]}"
        rows.append(row)
    with (data / competition.sample_submission).open(encoding="utf-8-sig", newline="") as stream:
        columns, *lines = islice(csv.reader(stream), 2)
    line = lines[0] if lines else ["0"] * len(columns)
    at = columns.index(competition.submitted_id)
    sample = [[*line[:at], row[place], *line[at + 1 :]] for row in rows]
    return Given(package, manifest, competition, header, rows, [columns, *sample], data)


@dataclass
class Scene:
    """The input tree of one kernel below `root`, and the file that a grader would compare its answers with."""

    given: Given
    root: Path
    budget: float
    """Seconds that the kernel is told; it must not take longer."""
    environment: dict[str, str] = field(default_factory=dict)
    shell: str = '"$@"'
    """How the script is started; see `run_script`."""
    writable: bool = True
    """Whether a submission can be written at all."""

    def __post_init__(self) -> None:
        self.inputs, self.working, self.expected = self.root / "input", self.root / "working", self.root / SAMPLE
        self.package = self.inputs / "datasets" / "somebody" / "some-package"
        self.files = self.inputs / "competitions" / self.given.competition.name
        self.test_file = self.files / self.given.competition.test
        self.sample_file = self.files / self.given.competition.sample_submission
        for file in self.given.package.rglob("*"):
            if file.is_file():
                link = self.package / file.relative_to(self.given.package)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
        for name in {lookup.mounted("test") for lookup in self.given.competition.looked_up("test")}:
            (self.files / name).parent.mkdir(parents=True, exist_ok=True)
            (self.files / name).symlink_to((self.given.data / name).resolve())
        for folder in (self.working, self.root / "home", self.root / "tmp", self.test_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.environment |= {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}
        self.test(self.given.rows)
        self.sample([row[self.given.place] for row in self.given.rows])
        self.expect([row[self.given.place] for row in self.given.rows], self.given.sample[0])

    def test(self, rows: list[list[str]], header: list[str] | None = None) -> None:
        """Replaces the test file."""
        write_table(self.test_file, header or self.given.header, rows, self.given.competition)

    def sample(self, ids: list[str], header: list[str] | None = None) -> None:
        """Replaces the sample submission by one with these ids."""
        columns, line, *_ = self.given.sample
        cells = dict(zip(columns, line, strict=True))
        header = header or columns
        name = self.given.competition.submitted_id
        write_csv(
            self.sample_file,
            [header, *([each if column == name else cells.get(column, "0") for column in header] for each in ids)],
        )

    def both(self, rows: list[list[str]]) -> None:
        """Replaces the test file, and the sample by one with the ids of these rows, which are then to be answered."""
        ids = [row[self.given.place] for row in rows]
        self.test(rows)
        self.sample(ids)
        self.expect(ids, self.given.sample[0])

    def expect(self, ids: list[str], columns: list[str] | None = None) -> None:
        """Says which ids a grader wants, in the file's order; by default in the package's own columns."""
        name = self.given.competition.submitted_id
        columns = columns or [name, *self.given.manifest["prior_cells"]]
        write_csv(self.expected, [columns, *([each if column == name else "" for column in columns] for each in ids)])

    def run(self) -> Ran:
        """Runs the kernel as in the scored rerun."""
        environment = {"PODIUM_BUDGET_SECONDS": f"{self.budget:g}"} | self.environment
        return run_script(self.inputs, self.working, True, self.budget + 30.0, environment, self.shell)

    def verdict(self) -> str | None:
        """Returns what the competition's checker has against the submission; None where it accepts it."""
        try:
            validate_submission(self.working / "submission.csv", self.expected, self.given.competition)
        except PodiumError as error:
            return str(error).replace(f"{self.working}/", "")
        return None

    def answered(self, log: str) -> tuple[int, str]:
        """Returns how many rows are written, and the rungs that answered them: from the log, else from the cells."""
        try:
            header, *lines = read_csv(self.working / "submission.csv")
        except (OSError, ValueError):
            return 0, "–"
        if told := re.findall(r"^rows per rung: (.*)$", log, flags=re.MULTILINE):
            return len(lines), told[-1] or "none"
        prior = [self.given.manifest["prior_cells"].get(name) for name in header]
        other = any(
            cell != wanted for line in lines for cell, wanted in zip(line, prior, strict=False) if wanted is not None
        )
        return len(lines), "other than the prior" if other else "prior"


def write_table(path: Path, header: list[str], rows: list[list[str]], competition: Competition) -> None:
    """Writes cells of text as CSV, JSON, JSON lines or parquet, as the file's name and competition say."""
    if path.suffix == ".parquet":
        pl.DataFrame(rows, schema=dict.fromkeys(header, pl.String), orient="row").write_parquet(path)
    elif path.suffix in OTHERS:
        records = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in rows]
        text = "\n".join(records) if path.suffix == ".jsonl" else f"[{','.join(records)}]"
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    elif competition.quotes == "none":  # where a separator or a line break in a cell cannot be written
        broken = str.maketrans(dict.fromkeys(f"\r\n{competition.separator}", " "))
        cells = [[cell.translate(broken) for cell in row] for row in [header, *rows]]
        options = {"delimiter": competition.separator, "quoting": csv.QUOTE_NONE, "quotechar": None}
        write_csv(path, cells, competition.encoding, **options)
    elif competition.quotes == "backslash":
        options = {"delimiter": competition.separator, "escapechar": "\\", "doublequote": False}
        write_csv(path, [header, *rows], competition.encoding, **options)
    else:
        write_csv(path, [header, *rows], competition.encoding, delimiter=competition.separator)


def read_csv(path: Path) -> list[list[str]]:
    """Returns header and lines of a CSV file."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.reader(stream))


def write_csv(path: Path, lines: list[list[str]], encoding: str = "utf-8", **options: Any) -> None:
    """Replaces a CSV file; `options` are the csv module's. What another encoding than UTF-8 lacks becomes a `?`."""
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    with path.open("w", encoding=encoding, errors=errors, newline="") as stream:
        csv.writer(stream, lineterminator="\n", **options).writerows(lines)


def replace_file(file: Path, content: bytes) -> None:
    """Replaces a file, not what it is a link to."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def flip(file: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    replace_file(file, bytes(content))


def accept(package: Path, *names: str) -> None:
    """Enters changed files of a package, by default all, into its manifest, so that the check by hash passes."""
    manifest = read_json(package / MANIFEST)
    for name in names or manifest["files"]:
        if (file := package / name).is_file():
            manifest["files"][name] |= {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    write_json(package / MANIFEST, sealed(manifest))
