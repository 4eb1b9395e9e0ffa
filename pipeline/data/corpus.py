"""The competition's own text: what tokenizers are built from, and what language models learn from.

python -m stages.backbone --backbone NAME        # for a backbone with `source: scratch`
"""

from __future__ import annotations

import polars as pl

from pipeline.competitions.task import Task
from pipeline.data.rows import joined_turns


def training_texts(rows: pl.DataFrame, task: Task) -> list[str]:
    """Returns every different text of `rows` (Artifacts.seen_rows): field by field, in the order of the rows.

    A text is the turns of one field, with an empty line between them; texts of white space are left out.
    """
    texts = pl.concat([joined_turns(rows, field).alias("text") for field in task.fields])
    return texts.filter(texts.str.strip_chars() != "").unique(maintain_order=True).to_list()
