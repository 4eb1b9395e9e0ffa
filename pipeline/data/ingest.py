"""From a folder of CSV files to artifacts/competition/: everything checked, one parquet file each for train and test.

python -m stages.prepare

Rows stream through polars in batches, so memory does not grow with the files: only the ids are held. The kernel reads
the hidden test file with the same `read_test`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data import diagnose
from pipeline.data.diagnose import label_columns, quoted, scan_by_hand, turns_of
from pipeline.data.quotes import as_in_rfc_4180
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, write_json

TURNS = pl.List(pl.String)
ROW_GROUP = 4096
"""Rows per parquet row group. Fixed, so that the bytes of a file do not depend on how many threads wrote it."""
MOST_CLASSES = 127
"""Labels are Int8."""

# A JSON list of strings and nulls on one line. polars' decoder reads it right; what does not match goes through Python,
# because that decoder also takes numbers for strings, drops empty cells and turns half a surrogate pair into NUL.
_ESCAPE = (
    r'\\["\\/bfnrt]|\\u[0-9a-ce-fA-CE-F][0-9a-fA-F]{3}|\\u[dD][0-7][0-9a-fA-F]{2}'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_TURN = rf'(?:"(?:[^"\\\x00-\x1f]|{_ESCAPE})*"|null)[ \t]*'
PLAIN_JSON = rf"\A[ \t]*\[[ \t]*(?:{_TURN}(?:,[ \t]*{_TURN})*)?\][ \t]*\z"

# Why a row needs a second look: a cell is wrong, or a cell is empty as it also is where a row is too short.
_WRONG, _MAYBE_SHORT = "wrong", "maybe short"


def prepare(source: Path, competition: Competition, target: Path) -> None:
    """Checks the competition's files in `source` and writes `target` as a whole.

    train.parquet: id String, label Int8, one List(String) of turns per field; test.parquet: the same without label;
    truth.parquet where there is a truth.csv: id and one Float64 probability per class; competition.json. The same
    files give the same bytes on any number of threads. A class without rows is a warning on stderr.

    Raises: PodiumError in one line for the first thing that is wrong.
    """
    if len(competition.outputs) > MOST_CLASSES:
        found = len(competition.outputs)
        raise PodiumError(f"{competition.name}: classes: expected at most {MOST_CLASSES}, found {found}")
    train_csv, test_csv = source / competition.train, source / competition.test
    sample_csv, truth_csv = source / competition.sample_submission, source / "truth.csv"
    # The headers first: a wrong column in the smallest file should not cost a pass over the largest.
    _header(train_csv, competition, labelled=True)
    _header(test_csv, competition, labelled=False)
    sample = _sample_ids(sample_csv, competition)
    at = Artifacts()
    with atomic_folder(target) as folder:
        train, test, truth = (folder / file.name for file in (at.train_file, at.test_file, at.truth_file))
        _read(train_csv, competition, labelled=True, sink=train)
        _read(test_csv, competition, labelled=False, sink=test)
        train_ids, test_ids = (pl.read_parquet(file, columns=["id"])["id"] for file in (train, test))
        diagnose.check_ids(train_csv, train_ids)
        diagnose.check_ids(test_csv, test_ids)
        diagnose.check_ids(sample_csv, sample)
        diagnose.warn_of_shared_ids(test_csv, test_ids, train_csv, train_ids)
        diagnose.check_holds(sample_csv, sample, test_csv, test_ids)
        diagnose.check_holds(test_csv, test_ids, sample_csv, sample)
        _warn_of_empty_classes(train_csv, train, competition)
        if truth_csv.is_file():
            _run(_truth(truth_csv, competition, train_csv, train_ids).lazy(), truth)
        rows = {"train": len(train_ids), "test": len(test_ids)}
        facts = {"competition": asdict(competition), "rows": rows, "data": _content_hash(train, competition)}
        write_json(folder / at.competition_file.name, facts)


def read_test(path: Path, competition: Competition, strict: bool) -> pl.DataFrame:
    """Returns the rows of a test file in file order: id String, then one List(String) of turns per field.

    With `strict` it checks what `prepare` checks. Without, it never raises for what a cell holds: a text cell that is
    no list of turns becomes one turn with the raw text, undecodable bytes become U+FFFD, other columns are passed
    over, and ids are not checked; so the fields of a row may differ in their number of turns.

    Raises: PodiumError for a missing file or column, and for every other fault if `strict`.
    """
    if strict:
        rows = _read(path, competition, labelled=False)
        diagnose.check_ids(path, rows["id"])
        return rows
    header = diagnose.read_header(path, competition, strict=False)
    needed = _needed(competition, labelled=False)
    diagnose.check_columns(path, header, needed, ignored=header)
    try:
        return _rows(_scan(path, header, competition), competition, False, set()).collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        cells = scan_by_hand(path, header, needed, competition, strict=False)
        return _rows(cells, competition, False, set()).collect(engine="streaming")


def _read(path: Path, competition: Competition, labelled: bool, sink: Path | None = None) -> pl.DataFrame:
    """Returns every row of train.csv (`labelled`) or test.csv, checked; a `sink` gets them in a stream instead."""
    header = _header(path, competition, labelled)
    doubts: set[str] = set()
    try:
        rows = _run(_rows(_scan(path, header, competition), competition, labelled, doubts), sink)
    except pl.exceptions.PolarsError:
        doubts.add(_WRONG)
    if doubts:
        diagnose.find_fault(path, competition, labelled)
    if _WRONG in doubts:
        # No fault of the file's: the csv module takes a quote in the middle of a cell and escapes, polars does not.
        doubts.clear()
        cells = scan_by_hand(path, header, _needed(competition, labelled), competition, strict=True)
        rows = _run(_rows(cells, competition, labelled, doubts), sink)
        assert not doubts, f"{path}: find_fault passes a row that _normalised does not"
    return rows


def _header(path: Path, competition: Competition, labelled: bool) -> list[str]:
    header = diagnose.read_header(path, competition)
    diagnose.check_columns(path, header, _needed(competition, labelled), competition.ignored)
    return header


def _needed(competition: Competition, labelled: bool) -> list[str]:
    return [competition.id, *competition.texts.values(), *(label_columns(competition) if labelled else ())]


def _scan(path: Path, header: list[str], competition: Competition) -> pl.LazyFrame:
    """Returns all columns as String, checked to be UTF-8; an empty cell is null, a quoted one is not.

    Raises: PolarsError where polars might read other rows than the csv module.
    """
    if competition.quotes != "doubled" or not as_in_rfc_4180(path, competition.separator):
        raise pl.exceptions.ComputeError(f"{path}: polars would not read its quotes as the csv module does")
    cells = pl.scan_csv(path, separator=competition.separator, infer_schema=False, glob=False)
    if cells.collect_schema().names() != header:
        raise pl.exceptions.SchemaError(f"{path}: polars sees other column names than the csv module")
    return cells


def _rows(cells: pl.LazyFrame, competition: Competition, labelled: bool, doubts: set[str]) -> pl.LazyFrame:
    schema = {"id": pl.String(), **({"label": pl.Int8()} if labelled else {})}
    schema |= dict.fromkeys(competition.kind.fields, TURNS)
    normalise = partial(_normalised, competition=competition, labelled=labelled, doubts=doubts)
    return cells.map_batches(normalise, schema=schema, streamable=True)


def _run(rows: pl.LazyFrame, sink: Path | None) -> pl.DataFrame:
    if sink is None:
        return rows.collect(engine="streaming")
    try:
        return rows.sink_parquet(sink, row_group_size=ROW_GROUP, lazy=True).collect(engine="streaming")
    except pl.exceptions.PolarsError:
        # A disk that fills up at the end of a file is a "transport error" to polars; the system says it plainly.
        with TemporaryFile(dir=sink.parent) as probe:
            probe.write(bytes(1 << 20))
        raise


def _normalised(cells: pl.DataFrame, competition: Competition, labelled: bool, doubts: set[str]) -> pl.DataFrame:
    """Returns a batch of cells as rows of train.parquet or test.parquet; `doubts` gets why one needs a second look."""
    if cells[:, -1].null_count() or cells[competition.id].null_count():
        doubts.add(_MAYBE_SHORT)
        cells = cells.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    columns = [cells[competition.id].fill_null("").alias("id")]
    wrong = (columns[0] == "").any()
    if labelled:
        columns.append(_labels(cells, competition).alias("label"))
        wrong = wrong or columns[-1].null_count() > 0
    fields = [_turns(cells[competition.texts[field]], competition) for field in competition.kind.fields]
    lengths = [turns.list.len() for turns, _ in fields]
    if wrong or not all(whole for _, whole in fields) or any((length != lengths[0]).any() for length in lengths):
        doubts.add(_WRONG)
    turns = [turns.alias(field) for field, (turns, _) in zip(competition.kind.fields, fields, strict=True)]
    return pl.DataFrame([*columns, *turns])


def _turns(cells: pl.Series, competition: Competition) -> tuple[pl.Series, bool]:
    """Returns the cells as lists of turns, and whether all were whole; one that is not becomes a turn of raw text."""
    cells = cells.fill_null("")
    if competition.turns == "plain":
        return cells.to_frame("cell").select(pl.concat_list("cell")).to_series(), True
    usual = cells.str.contains(PLAIN_JSON)
    decoded = cells.filter(usual).str.json_decode(TURNS)
    if usual.all():
        return decoded, True
    mended, whole = [], True
    for cell in cells.filter(~usual):
        try:
            mended.append(turns_of(cell))
        except ValueError:
            mended.append([cell])
            whole = False
    # Row i is the next one of `decoded` where it is usual, and else the next one of `mended`.
    nth, other_nth = usual.cast(pl.Int64).cum_sum() - 1, (~usual).cast(pl.Int64).cum_sum() - 1 + len(decoded)
    order = nth.zip_with(usual, other_nth)
    return pl.concat([decoded.alias("turns"), pl.Series("turns", mended, TURNS)]).gather(order), whole


def _labels(cells: pl.DataFrame, competition: Competition) -> pl.Series:
    """Returns the class index of each row, Int8; null where the label cells name no class or several."""
    columns = label_columns(competition)
    if competition.label.one_hot is None:
        index = {value: place for place, value in enumerate(diagnose.label_values(competition))}
        return cells[columns[0]].replace_strict(index, default=None, return_dtype=pl.Int8)
    hits = [pl.col(name).replace_strict(diagnose.ONE_HOT, default=None, return_dtype=pl.Int8) for name in columns]
    one_hit = pl.sum_horizontal(hits, ignore_nulls=False) == 1
    place = pl.sum_horizontal(hit * place for place, hit in enumerate(hits))
    return cells.select(pl.when(one_hit).then(place).cast(pl.Int8)).to_series()


def _sample_ids(path: Path, competition: Competition) -> pl.Series:
    header, expected = diagnose.read_header(path, competition), [competition.id, *competition.outputs]
    if sorted(header) != sorted(expected):  # in any order: the kernel writes the sample's
        raise PodiumError(f"{path}: expected the columns {', '.join(expected)}, found {', '.join(map(quoted, header))}")
    ids = scan_by_hand(path, header, [competition.id], competition, strict=True)
    return ids.collect(engine="streaming")[competition.id]


def _warn_of_empty_classes(train_csv: Path, train: Path, competition: Competition) -> None:
    present = pl.read_parquet(train, columns=["label"])["label"].unique().to_list()
    for index, name in enumerate(competition.outputs):
        if index not in present:
            print(f"warning: {train_csv}: no row is of class {quoted(name)}; it keeps its column", file=sys.stderr)


def _truth(path: Path, competition: Competition, train_csv: Path, train_ids: pl.Series) -> pl.DataFrame:
    """Returns the generated demo's true class probabilities of the training rows, in their order."""
    header, columns = diagnose.read_header(path, competition), [competition.id, *competition.outputs]
    diagnose.check_columns(path, header, columns, ignored=header)
    cells = scan_by_hand(path, header, columns, competition, strict=True).collect(engine="streaming")
    ids = cells[competition.id].alias("id")
    diagnose.check_ids(path, ids)
    diagnose.check_holds(path, ids, train_csv, train_ids)
    classes = cells.select(pl.col(competition.outputs).cast(pl.Float64, strict=False))
    right = ((classes.sum_horizontal(ignore_nulls=False) - 1).abs() < 1e-6) & (classes.min_horizontal() >= 0)
    wrong = ids.filter(~right.fill_null(False))
    if len(wrong):
        raise PodiumError(f"{path}: id {quoted(wrong[0])}: expected probabilities of the classes, with sum 1")
    return train_ids.to_frame().join(classes.insert_column(0, ids), on="id", how="left", maintain_order="left")


def _content_hash(train: Path, competition: Competition) -> str:
    """Returns the hex hash of the competition and of every id, label and text, whatever their encoding as parquet."""
    about = asdict(competition)
    del about["quotes"]  # how a text was written down is no part of it
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for batch in pl.scan_parquet(train, glob=False).collect_batches(chunk_size=ROW_GROUP, maintain_order=True):
        digest.update(batch.write_ndjson().encode())
    return digest.hexdigest()
