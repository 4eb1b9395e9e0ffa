"""The rows of a member's auxiliary tasks: read from the user's files, and kept apart from the rows it is scored on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from pipeline.competitions.task import WRITTEN, Competition, Task
from pipeline.data.rows import condensed, joined
from pipeline.data.split import Beside
from pipeline.errors import PodiumError
from pipeline.ingest.prepare import content_hash, read_train
from pipeline.members.context import Source, Start
from pipeline.settings.finetuning import NetworkSettings

SHORTEST = 20
"""Characters of a text, white space aside, below which two rows may share it by chance."""


def source_of(path: str, competition: Competition) -> Source:
    """Returns what the labelled rows in the folder `path` are.

    Raises: PodiumError for the first thing that is wrong with its training file.
    """
    rows, found = read_train(Path(path) / competition.train, competition)
    # What says how a file is to be read stays, though it teaches nothing: fine-tuning reads the file again.
    written = {name: getattr(found, name) for name in WRITTEN}
    return Source(replace(found.as_learned(), **written), content_hash(rows.lazy(), found))


def auxiliary_rows(start: Start, apart: pl.DataFrame, label: str, most: int | None = None) -> dict[str, Beside]:
    """Returns the auxiliary tasks' rows, at most `most` of each, but for those that have a text in common with `apart`.

    `apart`: rows of the scored competition on which the network will be judged.

    Raises: PodiumError where a file is not what it was when the start file was written, or no row is left.
    """
    found = {}
    for name, source in start.auxiliary.items():
        assert isinstance(start.settings, NetworkSettings) and start.settings.auxiliary
        file = Path(start.settings.auxiliary.tasks[name].path) / source.competition.train
        rows, competition = read_train(file, source.competition)
        if content_hash(rows.lazy(), competition) != source.data:
            raise PodiumError(f"{file}: has changed since {start.member}'s start file was written; run `dvc repro`")
        kept = without_texts_of(apart, start.competition.kind, rows, competition.kind)
        left_out = len(rows) - len(kept)
        print(f"{label}: {name}: {len(kept)} auxiliary rows, {left_out} left out: their text is in fold or holdout")
        if not len(kept):
            raise PodiumError(f"{file}: every row has a text in common with the fold or the holdout")
        found[name] = Beside(competition, kept if most is None else kept.head(most), left_out)
    return found


def without_texts_of(apart: pl.DataFrame, of: Task, rows: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Returns the `rows` of which no field has the text of a field of a row of `apart`, case and white space aside."""
    columns = apart.select(condensed(joined(field)).alias(field) for field in of.fields)
    texts = pl.concat([column.alias("text") for column in columns]).unique()
    texts = texts.filter(texts.str.len_chars() >= SHORTEST).implode()
    return rows.filter(~pl.any_horizontal(condensed(joined(field)).is_in(texts) for field in task.fields))
