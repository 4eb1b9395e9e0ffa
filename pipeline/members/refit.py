"""The final refit: one more model per member, trained on every row with the holdout, for the last submissions.

It joins the fold models in the kernel's average; stackers and calibration stay those of the folds. Nothing can be
measured on it, because it has seen every labelled row: what it says of some rows is kept for the parity check alone.
"""

from __future__ import annotations

import gc
import hashlib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition, competition_from_json
from pipeline.data.folds import Split
from pipeline.files import atomic_folder, remove_partials, sha256_file, write_json, write_parquet
from pipeline.inference.predict import predict_member
from pipeline.members.context import Run
from pipeline.members.fold import collapsed
from pipeline.training.checkpoint import checkpoint

MODEL, PARITY = "model", "parity.parquet"
PARITY_ROWS = 32
CHECKED_ROWS = 512
"""So many of its own rows are asked whether the model has learned anything at all."""
SEED = 43


def refit(kind: ModuleType, start: dict[str, Any], wanted: bool, artifacts: Path) -> bool:
    """Writes `artifacts`/refit/<member>: model/ and parity.parquet (id, one Float64 column per class).

    Returns whether there is a model. There is none where it is not `wanted`, for a file of predictions, which cannot be
    trained, and where training collapsed, which is said: then the model says so and parity.parquet has no rows. A run
    that was killed goes on from its checkpoint.
    """
    member, settings, competition = start["member"], start["settings"], competition_from_json(start["competition"])
    data = artifacts / "competition" / "train.parquet"
    sources = [sha256_file(each) for each in (data, artifacts / "start" / f"{member}.json")]
    key = hashlib.sha256(" ".join(sources).encode()).hexdigest()
    rows = pl.read_parquet(data)
    asked = rows.sample(min(CHECKED_ROWS, len(rows)), seed=SEED)
    folder, answers = artifacts / "refit" / member, None
    with checkpoint(f"{member}-refit", key) as state:
        remove_partials(folder)
        with atomic_folder(folder) as partial:
            model = partial / MODEL  # as deep as a fold model's, so that it finds its backbone
            if wanted and settings["kind"] != "external":
                run = Run(f"{member} refit", artifacts, state)
                answers = _train(kind, Split(rows, asked, rows.head(0)), start, model, run, competition)
            if answers is None:
                shutil.rmtree(model, ignore_errors=True)
                model.mkdir()
                write_json(model / "member.json", {"kind": settings["kind"], "trained": False})
            said = np.empty((0, len(competition.classes))) if answers is None else answers[:PARITY_ROWS]
            columns = (pl.Series(name, said[:, c]) for c, name in enumerate(competition.classes))
            write_parquet(asked.head(len(said)).select("id").with_columns(columns), partial / PARITY)
    return answers is not None


def _train(
    kind: ModuleType, split: Split, start: dict[str, Any], folder: Path, run: Run, competition: Competition
) -> np.ndarray | None:
    """Trains into `folder`; the model's (rows, classes) answers to `split.fold`, or None where it has collapsed."""
    folder.mkdir()
    kind.train(split, start, folder, run)
    gc.collect()  # networks refer to themselves; the prediction is about to load another
    answers = predict_member(folder, split.fold, competition, run.token_cache)
    if collapsed(split, answers, competition):
        print(f"warning: {run.label}: COLLAPSED, no better than the prior: it is left out", flush=True)
        return None
    return answers
