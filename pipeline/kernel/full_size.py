"""The dress rehearsal at full size: once more, in the scored rerun's manner, on `package.rehearse_rows` rows.

On Kaggle's own machine alone; `make rehearse ROWS=25000` does the same here. The rows are the package's, which were
drawn from train, but for the longest of each fold, again and again under ids of their own. The time is what the dress
rehearsal has left of its budget: what the scored rerun would not reach shows before a submission is spent on it.
"""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.data.rows import field_characters
from pipeline.files import read_json, write_json
from pipeline.kernel.inputs import KernelInputs
from pipeline.kernel.request import MADE, open_rows
from pipeline.kernel.serve import serve
from pipeline.kernel.submission import read_form

SEED = 11
FIRST_ID = 10**9
"""Ids count from here: a whole number is an id everywhere."""


def rehearse_full_size(inputs: KernelInputs, count: int, scratch: Path) -> None:
    """Runs once more on `count` made rows in what is left of the budget, and adds to rehearsal.json what came of it.

    `scratch` is a folder for the rows, the submission and the results, of which nothing is kept.
    """
    began, folder = time.monotonic(), scratch / "full"
    folder.mkdir(parents=True)
    rows = open_rows(inputs.package, inputs.data, rerun=False)
    made = drawn(rows.frame[rows.test_count :], rows.parity["fold"].to_numpy(), count, rows.competition.kind.fields)
    made.write_parquet(folder / MADE)
    prior = read_json(Artifacts(inputs.package).manifest_file)["prior_cells"]
    form = read_form(inputs.working / "submission.csv", rows.competition)
    with (folder / "submission.csv").open("w", encoding="utf-8", newline="") as stream:
        lines = ([prior.get(name, each) for name in form.columns] for each in made["id"])
        csv.writer(stream, lineterminator="\n").writerows([form.columns, *lines])
    print(f"once more, as in the scored rerun, on {count} rows drawn from the package's", flush=True)
    rungs = serve(replace(inputs, data=folder, working=folder, rerun=True), folder)
    seconds, left = time.monotonic() - began, inputs.deadline - began
    found: dict[str, Any] = {"rows": count, "seconds": round(seconds, 3), "rows_per_rung": rungs}
    report = inputs.working / "rehearsal.json"
    write_json(report, read_json(report) | {"full": found})
    told = ", ".join(f"{name} {each}" for name, each in rungs.items())
    print(
        f"full size: {count} rows took {seconds:.0f} of the {left:.0f} s that were left; rows per rung: {told}",
        flush=True,
    )


def drawn(known: pl.DataFrame, folds: np.ndarray, count: int, fields: tuple[str, ...]) -> pl.DataFrame:
    """Returns `count` rows of `known` (id and text fields), each as often as any other, give or take one.

    The longest row of each of `folds`, which stands there for its length, is left out where others are there.
    """
    lengths = np.sum(list(field_characters(known, fields).values()), axis=0)
    longest = {max(np.flatnonzero(folds == fold), key=lambda row: lengths[row]) for fold in np.unique(folds)}
    others = [row for row in range(len(known)) if row not in longest] or list(range(len(known)))
    draw = np.random.default_rng(SEED)
    order = np.concatenate([draw.permutation(others) for _ in range(-(-count // len(others)))])[:count]
    ids = pl.Series("id", [str(FIRST_ID + number) for number in range(count)], dtype=pl.String)
    return known[order].with_columns(ids.cast(known.schema["id"]))
