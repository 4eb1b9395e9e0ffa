"""The final refit: one more model per member, trained on every row with the holdout, for the last submissions.

It joins the fold models in the kernel's average; stackers and calibration stay those of the folds. Nothing can be
measured on it, because it has seen every labelled row: what it says of some rows is kept for the parity check alone.
"""

from __future__ import annotations

import gc
import hashlib
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.data.split import Split
from pipeline.files import atomic_folder, remove_partials, sha256_file, write_parquet
from pipeline.inference.predict import predict_member
from pipeline.kinds import KINDS
from pipeline.members.beside.auxiliary import auxiliary_rows
from pipeline.members.beside.learned import learned
from pipeline.members.context import Run, Start
from pipeline.members.fold import collapsed, train_model
from pipeline.models.saved import save_untrained
from pipeline.training.checkpoint import checkpoint

PARITY_ROWS = 32
CHECKED_ROWS = 512
"""So many of its own rows are asked whether the model has learned anything at all."""
SEED = 43


def refit(start: Start, wanted: bool, artifacts: Artifacts) -> bool:
    """Writes refit/<member>/: the model, and its answers to some rows (id, one Float64 column per class).

    Returns whether there is a model. There is none where it is not `wanted`, for a file of predictions, which cannot be
    trained, and where training collapsed, which is said: then the model says so and the answers have no rows. A run
    that was killed goes on from its checkpoint.
    """
    member, competition, folder = start.member, start.competition, artifacts.refit(start.member)
    sources = [sha256_file(each) for each in (artifacts.train_file, artifacts.start(member))]
    key = hashlib.sha256(" ".join(sources).encode()).hexdigest()
    rows = artifacts.train().collect()
    asked = rows.sample(min(CHECKED_ROWS, len(rows)), seed=SEED)
    answers = None
    with checkpoint(f"{member}-refit", key) as state:
        remove_partials(folder)
        with atomic_folder(folder) as partial:
            model = partial / artifacts.refit_model(member).name
            model.mkdir()
            if wanted and KINDS[start.settings.kind].knows_every_row:
                run = Run(f"{member} refit", artifacts, state)
                # Nothing is kept apart: it is judged by rows that it has learned.
                auxiliary = auxiliary_rows(start, rows.head(0), run.label)
                extra = learned(start, None, None, artifacts)
                answers = _train(Split(rows, asked, rows.head(0), auxiliary, extra=extra), start, model, run)
            if answers is None:
                shutil.rmtree(model)
                model.mkdir()
                save_untrained(model, start.settings)
            kept = np.empty((0, len(competition.outputs))) if answers is None else answers[:PARITY_ROWS]
            columns = (pl.Series(name, kept[:, c]) for c, name in enumerate(competition.outputs))
            write_parquet(
                asked.head(len(kept)).select("id").with_columns(columns), partial / artifacts.refit_answers(member).name
            )
    return answers is not None


def _train(split: Split, start: Start, folder: Path, run: Run) -> np.ndarray | None:
    """Trains into `folder`; returns the model's (rows, outputs) answers to `split.fold`, None where it collapsed."""
    train_model(split, start, folder, run)
    gc.collect()  # networks refer to themselves; the prediction is about to load another
    answers = predict_member(folder, run.artifacts, split.fold, start.competition, run.token_cache)
    if collapsed(split, answers, start.competition):
        print(f"warning: {run.label}: COLLAPSED, no better than the prior: it is left out", flush=True)
        return None
    return answers
