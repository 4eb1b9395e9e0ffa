"""The finished kernel at the hidden test's size: the scored rerun, here, on so many rows drawn from train.

make rehearse ROWS=25000        # by default the competition's hidden_rows

Nothing of the run is kept, and no stage of DVC is touched. The rows are train's in a drawn order, again and again,
under new ids, so their texts are as long as train's; a member of kind external knows none of them.
"""

from __future__ import annotations

import csv
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.ensemble.ladder import load_ladder
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.ingest.cells import plain_rows, read_header
from pipeline.kernel.submission import validate_submission
from pipeline.package.offline import offline_mode
from pipeline.package.rehearse import offline_kernel
from pipeline.package.scene import write_csv, write_table
from pipeline.planning.forecast import devices_of, forecast_kernel

SEED = 11
FIRST_ID = 10**9
"""Ids count from here: a whole number is an id everywhere, and none so large is likely to be one of train's."""


def rehearse_rows(package: Path, data: Path, rows: int | None, timings: dict[str, Any] | None, work: Path) -> None:
    """Runs the kernel of `package` as in the scored rerun on `rows` made rows, and prints log, plan and time.

    `rows` is by default what the competition hides. `timings` are those of a dress rehearsal on Kaggle, for the
    forecast of the machine that package.machine names. `work` is where temporary folders go.

    Raises: PodiumError where there is no package, the kernel meets a problem, or its submission is not valid.
    """
    artifacts = Artifacts(package)
    if not artifacts.manifest_file.is_file():
        raise PodiumError(f"{package}: no package here; run `make repro`")
    manifest = read_json(artifacts.manifest_file)
    competition = competition_from_json(manifest["competition"])
    rows = competition.hidden_rows if rows is None else rows
    if rows is None:
        raise PodiumError(f"ROWS: {competition.name} does not say how many rows it hides: name a number of rows")
    if rows < 1:
        raise PodiumError(f"ROWS: expected a positive number of rows, found {rows}")
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rows-", dir=work.resolve()) as temporary:
        made = Path(temporary)
        make_rows(data, made, rows, competition)
        began = time.monotonic()
        with offline_kernel(package, made, work, offline_mode(), rerun=True) as (working, log):
            seconds = time.monotonic() - began
            validate_submission(working / "submission.csv", made / competition.sample_submission, competition)
    problems = [line for line in log if line.startswith(("problem:", "error:"))]
    budget, machine = manifest["budget_seconds"], manifest.get("machine", "t4x2")
    print(f"here: {rows} rows took {seconds:.0f} of {budget:g} s, {seconds / budget:.1%}; {len(problems)} problems")
    ladder, known = load_ladder(artifacts.stack, competition), pl.read_parquet(artifacts.parity_file)
    source = "timed by the last dress rehearsal on Kaggle" if timings else "by nominal figures, which are far from sure"
    print(f"on package.machine {machine}, {source}:")
    devices = devices_of(machine)
    print("\n".join(forecast_kernel(manifest, ladder, known, rows, budget, devices, timings).lines()), flush=True)
    if problems:
        raise PodiumError(f"the kernel met {len(problems)} problems, the first: {problems[0]}")


def make_rows(data: Path, target: Path, rows: int, competition: Competition) -> None:
    """Writes a test file of `rows` rows drawn from `data`'s train file, and a sample submission with their ids.

    Each row of train comes as often as any other, give or take one. Columns that train lacks are empty;
    what other files hold of a row (`lookup`) comes from those of train.
    """
    own = competition.as_filed()
    columns = read_header(data / competition.test, own)
    header = read_header(data / competition.train, own)
    names = [competition.renamed.get(name, name) for name in columns]
    places = [header.index(name) if name in header else None for name in names]
    known = [
        ["" if place is None else cells[place] for place in places]
        for cells in plain_rows(data / competition.train, own, strict=True)
    ]
    draw = np.random.default_rng(SEED)
    order = np.concatenate([draw.permutation(len(known)) for _ in range(-(-rows // len(known)))])[:rows]
    at = columns.index(competition.id)
    made = [[*known[row][:at], str(FIRST_ID + number), *known[row][at + 1 :]] for number, row in enumerate(order)]
    for name in (competition.test, competition.sample_submission):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
    write_table(target / competition.test, columns, made, competition)
    for lookup in competition.looked_up("test"):  # the rows are train's, and so is what other files say of them
        beside = target / lookup.mounted("test")
        beside.parent.mkdir(parents=True, exist_ok=True)
        if not beside.exists():
            beside.symlink_to((data / lookup.mounted("train")).resolve())
    with (data / competition.sample_submission).open(encoding="utf-8-sig", newline="") as stream:
        head, *lines = islice(csv.reader(stream), 2)
    cells, place = (lines[0] if lines else ["0"] * len(head)), head.index(competition.submitted_id)
    sample = [[*cells[:place], row[at], *cells[place + 1 :]] for row in made]
    write_csv(target / competition.sample_submission, [head, *sample])
