"""What may stand in train.csv beside the texts: labels, groups and times; read in batches, and judged cell by cell.

`labels` and `label_fault` take the same cells: the second only says what is wrong with them.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from hashlib import blake2b

import numpy as np
import polars as pl
from scipy.sparse import coo_array, csgraph

from pipeline.competitions.task import WINNER, Competition
from pipeline.data.rows import by_appearance, condensed, joined
from pipeline.errors import nearest
from pipeline.ingest.tables import quoted

TRUTHS = {"True": "1", "true": "1", "TRUE": "1", "False": "0", "false": "0", "FALSE": "0"}
ZERO_OR_ONE = ("0", "0.0", "1", "1.0")
ONE_HOT = {cell: int(float(TRUTHS.get(cell, cell))) for cell in (*ZERO_OR_ONE, *TRUTHS)}
NUMBER = r"\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\z"
"""What polars and Python read as the same number."""
_NUMBER = re.compile(NUMBER.replace(r"\z", r"\Z"))
_WHOLE = re.compile(r"(-?[0-9]+)(\.0)?")


def label_columns(competition: Competition) -> tuple[str, ...]:
    """Returns the columns of train.csv that hold the answer."""
    label = competition.label
    alone = label.column if label.column is not None else WINNER if label.winner else label.listed
    return label.one_hot or label.columns or label.joined or ((alone,) if alone is not None else ())


def label_type(competition: Competition) -> pl.DataType:
    """Returns the type of `label` in train.parquet: a class index, or one number per output, or one score."""
    if competition.outcome in ("classes", "choice"):
        return pl.Int16()
    return pl.Array(pl.Float64, len(competition.classes or label_columns(competition)))


def listed(competition: Competition) -> pl.Expr:
    """Returns the labels that stand in the `listed` cell of each row."""
    label = competition.label
    cells = pl.col(label.listed or "").fill_null("")
    return cells.str.split(label.join).list.eval(pl.element().str.strip_chars())


def class_cells(competition: Competition) -> pl.Expr:
    """Returns the class value of each row as it stands in the label column, or in several that make one together."""
    label = competition.label
    if label.joined is None:
        return pl.col(label_columns(competition)[0]).fill_null("")
    cells = [pl.col(name).fill_null("").replace("", label.empty) for name in label.joined]
    return pl.concat_str(cells, separator=label.join)


def labels(cells: pl.DataFrame, competition: Competition) -> pl.Series:
    """Returns the label of each row, of `label_type`; null where its cells are none.

    A label or number that is not known is NaN.
    """
    kind, columns = label_type(competition), label_columns(competition)
    if competition.label.one_hot is not None:
        hits = [pl.col(name).replace_strict(ONE_HOT, default=None, return_dtype=pl.Int16) for name in columns]
        one_hit = pl.sum_horizontal(hits, ignore_nulls=False) == 1
        place = pl.sum_horizontal(hit * place for place, hit in enumerate(hits))
        return cells.select(pl.when(one_hit).then(place).cast(kind)).to_series()
    if competition.outcome in ("classes", "choice"):
        index = _spellings(competition)
        return cells.select(class_cells(competition).replace_strict(index, default=None, return_dtype=kind)).to_series()
    if competition.label.listed is not None:
        hits = [listed(competition).list.contains(name).cast(pl.Float64).alias(name) for name in competition.classes]
        return cells.select(pl.concat_arr(hits)).to_series()
    numbers = cells.select(_numbers(name, competition) for name in columns)
    known = numbers.select(~pl.any_horizontal(pl.all().is_null())).to_series()
    return numbers.select(pl.when(known).then(pl.concat_arr(pl.all()))).to_series()


def label_fault(row: dict[str, str], competition: Competition) -> str | None:
    """Returns what is wrong with the label cells of a row, or None."""
    columns = label_columns(competition)
    found = {column: row[column] for column in columns}
    if competition.label.listed is not None:
        return None  # any text is a list of labels
    if competition.outcome not in ("classes", "choice"):
        wrong = next((column for column in columns if not _is_right(found[column], competition)), None)
        if wrong is None:
            return None
        return f"column {quoted(wrong)}: expected {_expected(competition)}, found {quoted(found[wrong])}"
    if competition.label.one_hot is None:
        label = competition.label
        value = label.join.join(each or label.empty for each in found.values()) if label.joined else found[columns[0]]
        found, known = {" and ".join(columns) if label.joined else columns[0]: value}, _spellings(competition)
        words = competition.label_values
    else:
        known, words = ONE_HOT, ZERO_OR_ONE
    for column, value in found.items():
        if value not in known:
            some = ", ".join(words[:10]) + (", ..." if len(words) > 10 else "")
            return f"column {quoted(column)}: expected one of {some}, found {quoted(value)}{nearest(value, words)}"
    if competition.label.one_hot and sum(ONE_HOT[value] for value in found.values()) != 1:
        return f"expected exactly one 1 among {', '.join(found)}, found {', '.join(found.values())}"
    return None


def _spellings(competition: Competition) -> dict[str, int]:
    """Returns what may stand in the label column -> class index. Numbers and truths have several spellings."""
    values = competition.label_values
    found = {value: place for place, value in enumerate(values)}
    for place, value in enumerate(values):
        whole = _WHOLE.fullmatch(value)
        number = whole[1] if whole else TRUTHS.get(value)
        truths = [word for word, digit in TRUTHS.items() if digit == number]
        for spelled in (*((number, f"{number}.0") if whole else ()), *truths):
            found.setdefault(spelled, place)
    return found | {written: found[value] for written, value in competition.label.also.items() if value in found}


def _bounds(competition: Competition) -> tuple[float, float]:
    if competition.outcome == "ordered":
        return competition.scores[0], competition.scores[-1]
    if competition.outcome == "labels":
        return 0.0, 1.0
    return 0.0 if competition.label.log else -sys.float_info.max, sys.float_info.max


def _may_be_empty(competition: Competition) -> bool:
    if competition.outcome == "labels":
        return True
    return competition.outcome == "numbers" and len(label_columns(competition)) > 1


def _numbers(column: str, competition: Competition) -> pl.Expr:
    """Returns Float64: the numbers of a column, NaN where an empty cell is right, null where a cell is wrong."""
    cell = pl.col(column).fill_null("")
    if competition.outcome == "labels":
        cell = cell.replace(TRUTHS)
    number = pl.when(cell.str.contains(NUMBER)).then(cell).cast(pl.Float64, strict=False)
    right = number.is_between(*_bounds(competition))
    if competition.outcome == "ordered":
        right &= number == number.floor()
    number = pl.when(right).then(number)
    if _may_be_empty(competition):
        number = pl.when(cell == "").then(float("nan")).otherwise(number)
    return number.alias(column)


def _is_right(cell: str, competition: Competition) -> bool:
    """Returns whether `_numbers` takes the cell."""
    if competition.outcome == "labels":
        cell = TRUTHS.get(cell, cell)
    if not _NUMBER.match(cell):
        return cell == "" and _may_be_empty(competition)
    number, (low, high) = float(cell), _bounds(competition)
    return low <= number <= high and (competition.outcome != "ordered" or number.is_integer())


def _expected(competition: Competition) -> str:
    low, high = _bounds(competition)
    if competition.outcome == "ordered":
        return f"a whole number from {low} to {high}"
    words = "a number from 0 to 1" if competition.outcome == "labels" else "a number"
    words += " from 0 up" if competition.label.log else ""
    return f"{words}, or nothing" if _may_be_empty(competition) else words


def group_ids(cells: pl.DataFrame, competition: Competition) -> pl.Series:
    """Returns UInt64 per row: equal where the cells of the `group` columns are, case and white space aside."""
    # No hash of polars', which another version may change: what is in train.parquet decides whether to train anew.
    keys = cells.select(condensed(pl.col(name).fill_null("")) for name in competition.group).iter_rows()
    digests = (blake2b(repr(key).encode(), digest_size=8).digest() for key in keys)
    return pl.Series("group", [int.from_bytes(digest) for digest in digests], pl.UInt64)


def connected_rows(rows: pl.LazyFrame, sides: tuple[str, str]) -> pl.Series:
    """Returns UInt32 per row: equal where rows are linked by a text that both have, on either side, through others too.

    Texts are compared without case and white space; empty ones link nothing.
    """
    texts = [condensed(joined(side)) for side in sides]
    hashes = rows.select(
        pl.when(text != "").then(text.hash()).alias(side) for text, side in zip(texts, sides, strict=True)
    )
    found = hashes.collect(engine="streaming")
    count, stacked = found.height, pl.concat([found[side].alias("text") for side in sides])
    # A text's number; an empty one gets a number of its own.
    places = stacked.rank("dense").cast(pl.Int64).fill_null(pl.int_range(-2 * count, 0, eager=True)).to_numpy()
    _, places = np.unique(places, return_inverse=True)
    edges = coo_array((np.ones(count), (places[:count], places[count:])), shape=(2 * count, 2 * count))
    component = csgraph.connected_components(edges, directed=False)[1][places[:count]]
    return pl.Series("group", by_appearance(component), pl.UInt32)


def moment(cell: str) -> tuple[str, float] | None:
    """Returns whether a cell of the `time` column is a "number" or a "date", and the number, or the seconds since 1970.

    None where it is neither.
    """
    if _NUMBER.match(cell):
        return ("number", float(cell)) if abs(float(cell)) <= sys.float_info.max else None
    try:
        date = datetime.fromisoformat(cell)
    except ValueError:
        return None
    return "date", (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
