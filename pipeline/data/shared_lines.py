"""Lines of text that rows of different parts have in common: a sign that rows belong together and were parted."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.competitions.task import Task
from pipeline.data.rows import condensed, joined

SHORTEST = 40
"""Characters of a line, white space aside, below which two rows may share it by chance."""
ROWS_AT_ONCE = 4096


def share_in_common(rows: pl.LazyFrame, parts: np.ndarray, task: Task) -> float:
    """Returns the share of the rows that have a long line in common with a row of another part.

    rows: train.parquet; parts: (rows,) integers. Of each line only its hash is held.
    """
    texts = pl.concat_str([joined(field) for field in task.fields], separator="\n")
    lines = texts.str.split("\n").alias("line")
    hashes, owners, begin = [], [], 0
    for batch in rows.select(task.fields).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True):
        numbered = batch.select(lines, pl.int_range(begin, begin + len(batch)).alias("row")).explode("line")
        line = condensed(pl.col("line"))
        # The length first: it costs less than the rest, which makes no line longer but for a few signs.
        long = numbered.filter(pl.col("line").str.len_chars() >= SHORTEST).select(line, "row")
        long = long.filter(pl.col("line").str.len_chars() >= SHORTEST).select(pl.col("line").hash(), "row")
        hashes.append(long["line"].to_numpy())
        owners.append(long["row"].to_numpy())
        begin += len(batch)
    owner = np.concatenate(owners)
    distinct, line_of = np.unique(np.concatenate(hashes), return_inverse=True)
    part = parts.astype(np.int64)[owner]
    one_part = np.empty(len(distinct), dtype=np.int64)
    one_part[line_of] = part  # of each line the last; the line is shared where it is not the part of every other
    shared = np.zeros(len(distinct), dtype=bool)
    shared[line_of[part != one_part[line_of]]] = True
    return len(np.unique(owner[shared[line_of]])) / len(parts)
