"""A teammate's member: reads their predictions, checks them, and files them as if a fold model had made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.split import Split
from pipeline.errors import PodiumError, nearest
from pipeline.ingest.cells import read_header, scan_by_hand
from pipeline.members.context import Run, Start
from pipeline.models.external import save_external
from pipeline.settings.external import External

TOLERANCE = 1.0e-3
"""How far a row's probabilities may be from a sum of 1; files from elsewhere are often rounded."""


def train(split: Split, start: Start, folder: Path, run: Run) -> None:
    """Checks the external file against the rows of this fold and saves it into `folder`.

    The out-of-fold promise is the teammate's: their models must have used the folds of artifacts/folds.parquet.

    Raises: PodiumError for missing columns, missing or repeated ids, and values that are no answers.
    """
    assert isinstance(start.settings, External)
    file = Path(start.settings.file)
    predictions = read_predictions(file, start.competition)
    for part, rows in (("the fold", split.fold), ("the holdout", split.holdout)):
        check_ids(file, predictions, rows, part)
    save_external(predictions, start.settings, start.competition, folder)


def check_ids(file: Path, predictions: pl.DataFrame, rows: pl.DataFrame, part: str) -> None:
    """Raises PodiumError where `predictions` lack an id of `rows`, which are `part` of the competition's."""
    missing = rows.join(predictions, on="id", how="anti", maintain_order="left")["id"]
    if len(missing):
        alike = [name for name in predictions["id"] if _as_number(name) == _as_number(missing[0])]
        hint = f' (did you mean "{alike[0]}", as it stands in the file?)' if alike else ""
        raise PodiumError(
            f"{file}: {len(missing)} of {len(rows)} ids of {part} are missing, the first is {missing[0]}{hint}"
        )


def _as_number(name: str) -> float | str:
    """Returns what an id comes to where a table has read it as a number, or has put blanks around it."""
    try:
        return float(name)
    except ValueError:
        return name.strip()


def read_predictions(file: Path, competition: Competition) -> pl.DataFrame:
    """Returns the file's id column as String `id`, and one Float64 column per output: means as an answer has them.

    Raises: PodiumError naming the column or the id that is wrong.
    """
    # By the exact reader: a faster one glues rows together where quotes are not doubled.
    plain = replace(competition, separator=",", quotes="doubled", encoding="utf-8", lookup=(), train_id=None)
    header, wanted = read_header(file, plain), [competition.id, *competition.outputs]
    for column in wanted:
        if column not in header:
            raise PodiumError(f'{file}: column "{column}" is missing{nearest(column, header)}')
    raw = scan_by_hand(file, header, wanted, plain, strict=True).collect(engine="streaming")
    ids = raw[competition.id]
    repeated = ids.filter(ids.is_duplicated())
    if len(repeated):
        raise PodiumError(f'{file}: column "{competition.id}": id {repeated[0]} stands more than once')
    columns = list(competition.outputs)
    numbers = raw.select(columns).with_columns(pl.col(pl.String).str.strip_chars()).cast(pl.Float64, strict=False)
    sound, expected = numbers.select(pl.all_horizontal(pl.all().is_finite())).to_series(), "finite numbers"
    if competition.family.bounded:
        sound &= numbers.select(pl.all_horizontal(pl.all().is_between(0, 1))).to_series()
        expected = "probabilities"
    if summing := competition.outcome in ("classes", "choice"):
        total = numbers.sum_horizontal(ignore_nulls=False)
        sound &= (total - 1).abs().is_between(0, TOLERANCE)
        expected = "probabilities that sum to 1"
    sound = sound.fill_null(False)
    if not sound.all():
        row = int((~sound).arg_max() or 0)
        found = [raw[name][row] for name in columns]
        raise PodiumError(f"{file}: id {ids[row]}: expected {expected}, found {found}")
    return numbers.select(pl.all() / total if summing else pl.all()).insert_column(0, ids.alias("id"))
