"""The competition's own text: what tokenizers are built from, and what language models learn from.

python -m stages.backbone --backbone NAME        # for a backbone with `source: scratch`
"""

from __future__ import annotations

import polars as pl

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.task import Task
from pipeline.data.rows import joined_turns
from pipeline.errors import PodiumError


def training_texts(rows: pl.DataFrame, folds: pl.DataFrame, task: Task) -> list[str]:
    """Returns every different text of `rows` (train.parquet) outside the holdout: by field, in the order of the rows.

    A text is the turns of one field, with an empty line between them; texts of white space are left out.

    Raises: PodiumError where `folds` (folds.parquet) does not hold the ids of `rows` in the same order.
    """
    if not rows["id"].equals(folds["id"]):
        raise PodiumError("artifacts/folds.parquet: its ids are not those of train.parquet; run `dvc repro folds`")
    kept = rows.filter(folds["fold"] != HOLDOUT)
    texts = pl.concat([joined_turns(kept, field).alias("text") for field in task.fields])
    return texts.filter(texts.str.strip_chars() != "").unique(maintain_order=True).to_list()
