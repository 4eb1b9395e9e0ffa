"""The final refit: one more model per member, trained on every row with the holdout, for the last submissions.

It joins the fold models in the kernel's average; stackers and calibration stay those of the folds. Nothing can be
measured on it, because it has seen every labelled row: what it says of some rows is kept for the parity check alone.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.task import competition_from_json
from pipeline.data.folds import Split
from pipeline.files import atomic_folder, write_json, write_parquet
from pipeline.inference.predict import predict_member

MODEL, PARITY = "model", "parity.parquet"
PARITY_ROWS = 32
SEED = 43


def refit(kind: ModuleType, rows: pl.DataFrame, start: dict[str, Any], wanted: bool, folder: Path) -> bool:
    """Writes `folder`/model and `folder`/parity.parquet (id and one Float64 column per class); returns if it trained.

    `rows` are all labelled rows. Where it is not `wanted`, and for a file of predictions, which cannot be trained, the
    model says so and parity.parquet has no rows.
    """
    competition = competition_from_json(start["competition"])
    trained = wanted and start["settings"]["kind"] != "external"
    asked = rows.sample(min(PARITY_ROWS, len(rows)), seed=SEED) if trained else rows.head(0)
    answers = np.empty((0, len(competition.classes)))
    with atomic_folder(folder) as partial:
        if trained:
            kind.train(Split(rows, asked, rows.head(0)), start, partial / MODEL)
            answers = predict_member(partial / MODEL, asked, competition)
        else:
            (partial / MODEL).mkdir()
            write_json(partial / MODEL / "member.json", {"kind": start["settings"]["kind"], "trained": False})
        columns = {name: answers[:, c] for c, name in enumerate(competition.classes)}
        write_parquet(asked.select("id").with_columns(pl.Series(*item) for item in columns.items()), partial / PARITY)
    return trained
