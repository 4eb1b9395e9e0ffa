"""From a folder of tables to artifacts/competition/: everything checked, one parquet file each for train and test.

python -m stages.prepare

Rows stream through polars in batches, so memory does not grow with the files: only the ids are held. The kernel reads
the hidden test file with the same `read_test`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.metrics import metric_named
from pipeline.competitions.submission import check_answers
from pipeline.competitions.task import AUTO, NUMBERED, TAKEN, Competition
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, write_json
from pipeline.ingest import diagnose, labels
from pipeline.ingest.cells import as_in_the_file, read_header, scan_by_hand
from pipeline.ingest.diagnose import turns_of
from pipeline.ingest.labels import label_columns
from pipeline.ingest.quotes import as_in_rfc_4180
from pipeline.ingest.tables import OTHERS, quoted

TURNS = pl.List(pl.String)
LARGEST = 1.0e100
"""The square of a number, of which errors are made, must be one too."""
SMALLEST_SPREAD = 1.0e-9
"""Numbers that differ by less are one number."""
ROW_GROUP = 4096
"""Rows per parquet row group. Fixed, so that the bytes of a file do not depend on how many threads wrote it."""
FEWEST_ROWS = 5
"""Rows that a label has at least which `classes: auto` finds in lists."""
SENTENCE = 20
"""Characters, in the mean, of a field whose equal values are no chance; what is shorter is a category or a number."""
MANY_ROWS = 100
"""From so many rows on, classes of which most have one row are taken for texts."""
MOST_CLASSES = 2**15 - 1
"""Labels are Int16."""

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

    train.parquet: id String, label, one List(String) of turns per field, and where the competition has them group (an
    integer, equal for rows that must not be parted) and time (Float64). A label is an Int16 class index, or an
    Array(Float64): a number per label or number, NaN where it is not known, or one score. test.parquet: id and the
    fields; truth.parquet where there is a truth.csv: id and one Float64 mean per output; competition.json. The same
    files give the same bytes on any number of threads. An answer that no row has is a warning on stderr.

    Raises: PodiumError in one line for the first thing that is wrong.
    """
    train_csv, test_csv = source / competition.train, source / competition.test
    sample_csv, truth_csv = source / competition.sample_submission, source / "truth.csv"
    competition = _after_headers(source, competition)
    sample = ids_of(sample_csv, _as_sample(sample_csv, competition))
    at = Artifacts()
    with atomic_folder(target) as folder:
        train, test, truth = (folder / file.name for file in (at.train_file, at.test_file, at.truth_file))
        _read(train_csv, competition, labelled=True, sink=train)
        _read(test_csv, competition, labelled=False, sink=test)
        if competition.kind.group is None and not competition.group:
            _write_connected(train, competition)
        train_ids, test_ids = (pl.read_parquet(file, columns=["id"])["id"] for file in (train, test))
        diagnose.check_ids(train_csv, train_ids)
        diagnose.check_ids(test_csv, test_ids)
        diagnose.check_ids(sample_csv, sample)
        diagnose.warn_of_shared_ids(test_csv, test_ids, train_csv, train_ids)
        diagnose.check_holds(sample_csv, sample, test_csv, test_ids)
        diagnose.check_holds(test_csv, test_ids, sample_csv, sample)
        answers = pl.read_parquet(train, columns=["label"])["label"].to_numpy()
        competition = _with_scale(_with_group(competition, train), answers, train_csv)
        _check_answers(train_csv, answers, competition)
        if truth_csv.is_file():
            _run(_truth(truth_csv, competition, train_csv, train_ids).lazy(), truth)
        rows = {"train": len(train_ids), "test": len(test_ids)}
        data = content_hash(pl.scan_parquet(train, glob=False), competition)
        facts = {"competition": asdict(competition), "rows": rows, "data": data}
        write_json(folder / at.competition_file.name, facts)


def read_train(path: Path, competition: Competition) -> tuple[pl.DataFrame, Competition]:
    """Returns the rows of a training file as `prepare` writes them, but for the groups of a pair, and the competition
    with the classes and the scale that are found in them.

    Raises: PodiumError in one line for the first thing that is wrong.
    """
    _header(path, competition, labelled=True)
    if competition.classes == AUTO:
        competition = replace(competition, classes=_classes_of(path, competition))
    rows = _read(path, competition, labelled=True)
    diagnose.check_ids(path, rows["id"])
    return rows, _with_scale(competition, rows["label"].to_numpy(), path)


def glance(source: Path, competition: Competition, most: int) -> Competition:
    """Checks the columns of the competition's files in `source`, and the first `most` rows of each.

    Returns the competition with its classes. Raises: PodiumError as `prepare` would.
    """
    competition = _after_headers(source, competition)
    for name, labelled in ((competition.train, True), (competition.test, False)):
        diagnose.find_fault(source / name, competition, labelled, most)
    return competition


def ids_of(path: Path, competition: Competition) -> pl.Series:
    """Returns the ids of a file of the competition, in file order."""
    column = competition.id_column(path)
    rows = scan_by_hand(path, read_header(path, competition), [column], competition, strict=True)
    return rows.collect(engine="streaming")[column].alias("id")


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
    header = read_header(path, competition, strict=False)
    needed = _needed(path, competition, labelled=False)
    diagnose.check_columns(path, header, needed, ignored=header)
    try:
        return _rows(_scan(path, header, competition), path, competition, False, set()).collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        cells = scan_by_hand(path, header, needed, competition, strict=False)
        return _rows(cells, path, competition, False, set()).collect(engine="streaming")


def _read(path: Path, competition: Competition, labelled: bool, sink: Path | None = None) -> pl.DataFrame:
    """Returns every row of train.csv (`labelled`) or test.csv, checked; a `sink` gets them in a stream instead."""
    header = _header(path, competition, labelled)
    doubts: set[str] = set()
    try:
        rows = _run(_rows(_scan(path, header, competition), path, competition, labelled, doubts), sink)
    except pl.exceptions.PolarsError:
        doubts.add(_WRONG)
    if doubts & {_WRONG, _MAYBE_SHORT}:
        diagnose.find_fault(path, competition, labelled)
    if _WRONG in doubts:
        # No fault of the file's: the csv module takes a quote in the middle of a cell and escapes, polars does not.
        doubts.clear()
        cells = scan_by_hand(path, header, _needed(path, competition, labelled), competition, strict=True)
        rows = _run(_rows(cells, path, competition, labelled, doubts), sink)
        assert _WRONG not in doubts, f"{path}: find_fault passes a row that _normalised does not"
    return rows


def _after_headers(source: Path, competition: Competition) -> Competition:
    """Returns the competition with its classes, after a look at the columns of its files."""
    # First of all: a wrong column in the smallest file should not cost a pass over the largest.
    _header(source / competition.train, competition, labelled=True)
    _header(source / competition.test, competition, labelled=False)
    if competition.classes == AUTO:
        competition = replace(competition, classes=_classes_of(source / competition.train, competition))
        check_answers(competition, metric_named(competition.metric))
    sample_csv = source / competition.sample_submission
    sample = _as_sample(sample_csv, competition)
    diagnose.check_sample(sample_csv, read_header(sample_csv, sample), sample)
    return competition


def _header(path: Path, competition: Competition, labelled: bool) -> list[str]:
    header = read_header(path, competition)
    # A test file may have what parts the training rows; nothing is done with it there.
    passed_over = [*competition.ignored, *competition.group, *([competition.time] if competition.time else [])]
    if competition.lookup or competition.parts:  # of other files, lists and records nothing need be ignored
        own = read_header(path, competition.as_filed())
        passed_over += [*(lookup.key for lookup in competition.lookup), *(name for name in header if name not in own)]
        passed_over += [name for name in own if any(f"{way}.".startswith(f"{name}.") for way in competition.parts)]
    if labelled:
        passed_over += competition.left_out
    if labelled and competition.train_id is None and competition.id not in header:
        raise PodiumError(
            f"{path}: missing column {quoted(competition.id)}, found {', '.join(map(quoted, header))[:200]}; where "
            f'{path.name} has another id, write `train_id: its name`, and "{NUMBERED}" where it has none'
        )
    diagnose.check_columns(path, header, _needed(path, competition, labelled), passed_over)
    return header


def _needed(path: Path, competition: Competition, labelled: bool) -> list[str]:
    columns = [competition.id_column(path), *competition.texts.values()]
    if labelled:
        columns += [*label_columns(competition), *competition.group, *([competition.time] if competition.time else [])]
    return list(dict.fromkeys(columns))


def _scan(path: Path, header: list[str], competition: Competition) -> pl.LazyFrame:
    """Returns all columns as String, checked to be UTF-8; an empty cell is null, a quoted one is not.

    Raises: PolarsError where polars might read other rows than the csv module.
    """
    if path.suffix in OTHERS:
        raise pl.exceptions.ComputeError(f"{path}: is no CSV file")
    if not as_in_the_file(path, competition):
        raise pl.exceptions.ComputeError(f"{path}: polars would see something else than the YAML file says")
    if not as_in_rfc_4180(path, competition.separator):
        raise pl.exceptions.ComputeError(f"{path}: polars would not read its quotes as the csv module does")
    cells = pl.scan_csv(path, separator=competition.separator, infer_schema=False, glob=False)
    if cells.collect_schema().names() != header:
        raise pl.exceptions.SchemaError(f"{path}: polars sees other column names than the csv module")
    return cells


def _rows(cells: pl.LazyFrame, path: Path, competition: Competition, labelled: bool, doubts: set[str]) -> pl.LazyFrame:
    schema: dict[str, pl.DataType] = {"id": pl.String()}
    if labelled:
        schema["label"] = labels.label_type(competition)
    schema |= dict.fromkeys(competition.kind.fields, TURNS)
    if labelled and competition.group:
        schema["group"] = pl.UInt64()
    if labelled and competition.time:
        schema["time"] = pl.Float64()
    id_column = competition.id_column(path)
    normalise = partial(_normalised, id_column=id_column, competition=competition, labelled=labelled, doubts=doubts)
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


def _normalised(
    cells: pl.DataFrame, id_column: str, competition: Competition, labelled: bool, doubts: set[str]
) -> pl.DataFrame:
    """Returns a batch of cells as rows of train.parquet or test.parquet; `doubts` gets why one needs a second look."""
    if cells[:, -1].null_count() or cells[id_column].null_count():
        doubts.add(_MAYBE_SHORT)
        cells = cells.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    columns = [cells[id_column].fill_null("").alias("id")]
    wrong = (columns[0] == "").any()
    if labelled:
        columns.append(labels.labels(cells, competition).alias("label"))
        wrong = wrong or columns[-1].null_count() > 0
    fields = [_turns(cells[competition.texts[field]], competition) for field in competition.kind.fields]
    lengths = [turns.list.len() for turns, _ in fields]
    if wrong or not all(whole for _, whole in fields) or any((length != lengths[0]).any() for length in lengths):
        doubts.add(_WRONG)
    columns += [turns.alias(field) for field, (turns, _) in zip(competition.kind.fields, fields, strict=True)]
    if labelled and competition.group:
        columns.append(labels.group_ids(cells, competition))
    if labelled and competition.time:
        times = [labels.moment(cell or "") for cell in cells[competition.time]]
        doubts |= {kind for kind, _ in filter(None, times)}
        if None in times or {"number", "date"} <= doubts:
            doubts.add(_WRONG)
        columns.append(pl.Series("time", [found and found[1] for found in times], pl.Float64))
    return pl.DataFrame(columns)


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


def _classes_of(train_csv: Path, competition: Competition) -> tuple[str, ...]:
    """Returns the values in the label column of train.csv, sorted.

    Raises: PodiumError where there is no choice, or a value that cannot be a column of an answer.
    """
    header, columns = read_header(train_csv, competition), list(label_columns(competition))
    cells = scan_by_hand(train_csv, header, columns, competition, strict=True)
    listed = competition.label.listed is not None
    values = labels.listed(competition).list.unique().explode() if listed else labels.class_cells(competition)
    counted = cells.select(values.alias("class").value_counts()).collect(engine="streaming").unnest("class")
    known = counted.filter(pl.col("count") >= (FEWEST_ROWS if listed else 1))["class"]
    # An empty cell is a fault of its row, or no label.
    classes = tuple(sorted(filter(None, set(known).difference(competition.label.also))))
    place = f"{train_csv}: column {' and '.join(map(quoted, columns))}"
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise PodiumError(f"{place}: expected 2 to {MOST_CLASSES} different classes, found {len(classes)}")
    if not listed and (rows := int(counted["count"].sum())) >= MANY_ROWS and 2 * len(classes) > rows:
        raise PodiumError(
            f"{place}: expected classes that several rows have, found {len(classes)} different values in {rows} rows: "
            "answers that are texts cannot be said"
        )
    for name in classes:
        if name in (*TAKEN, competition.id) or not name.strip():
            raise PodiumError(
                f"{place}: no class can be named {quoted(name)}; name the classes and give `label.values`"
            )
    return classes


def _as_sample(path: Path, competition: Competition) -> Competition:
    """Returns the competition as its sample submission is written: with commas and quotes, whatever the others have."""
    if competition.quotes == "none":
        competition = replace(competition, quotes="doubled")
    if path.is_file() and competition.separator != ",":
        with path.open(encoding="utf-8", errors="replace") as stream:
            if competition.separator not in stream.readline():
                return replace(competition, separator=",")
    return competition


def _write_connected(train: Path, competition: Competition) -> None:
    """Adds to the training rows of a pair task the column `group`: it needs to know all rows first."""
    assert competition.kind.sides
    rows, partial_file = pl.scan_parquet(train, glob=False), train.with_suffix(".partial")
    groups = labels.connected_rows(rows, competition.kind.sides)
    _run(pl.concat([rows, groups.to_frame().lazy()], how="horizontal"), partial_file)
    partial_file.replace(train)


def _with_group(competition: Competition, train: Path) -> Competition:
    """Returns the competition with the field by which rows are grouped, where the first holds categories."""
    fields, rows = competition.kind.common, pl.scan_parquet(train, glob=False)
    if competition.task not in ("text", "choices") or competition.group or len(fields) < 2:
        return competition
    sizes = rows.select(pl.col(field).list.first().str.len_chars().mean() for field in fields).collect().row(0)
    long = [field for field, size in zip(fields, sizes, strict=True) if (size or 0) >= SENTENCE]
    found = long[0] if long else max(zip(sizes, fields, strict=True), key=lambda each: each[0] or 0)[1]
    return competition if found == fields[0] else replace(competition, grouped=found)


def _with_scale(competition: Competition, answers: np.ndarray, train_csv: Path) -> Competition:
    """Returns the competition with the centre and spread of its numbers; any other as it is."""
    if competition.outcome != "numbers":
        return competition
    largest = np.max(np.abs(answers), axis=0, initial=0.0, where=np.isfinite(answers))
    for column, values, most in zip(competition.outputs, answers.T, largest, strict=True):
        if most > LARGEST:
            words = f"expected numbers up to {LARGEST:g}, found one of {most:g}"
            raise PodiumError(f"{train_csv}: column {quoted(column)}: {words}")
        if len(different := np.unique(values[np.isfinite(values)])) < 2 or np.nanstd(values) < SMALLEST_SPREAD:
            found = f"one value only, {float(different[0])!r}" if len(different) else "none"
            raise PodiumError(f"{train_csv}: column {quoted(column)}: expected different numbers, found {found}")
    numbers = np.log1p(answers) if competition.label.log else answers
    centre, spread = np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0)
    return replace(competition, centre=tuple(centre.tolist()), spread=tuple(spread.tolist()))


def _check_answers(train_csv: Path, answers: np.ndarray, competition: Competition) -> None:
    """Raises: PodiumError where nothing is known of a label, or all rows have one score."""
    if competition.outcome == "ordered" and len(scores := np.unique(answers)) < 2:
        column = quoted(label_columns(competition)[0])
        raise PodiumError(f"{train_csv}: column {column}: expected different scores, found {scores[0]:g} alone")
    if competition.outcome not in ("classes", "labels"):
        return
    if competition.outcome == "labels" and not (known := np.isfinite(answers).any(axis=0)).all():
        column = quoted(competition.outputs[int(np.argmin(known))])
        raise PodiumError(f"{train_csv}: column {column}: expected a label in some row, found none")
    classes = competition.outcome == "classes"
    for place, name in enumerate(competition.outputs):
        if not ((answers == place) if classes else answers[:, place] > 0).any():
            words = f"is of class {quoted(name)}" if classes else f"has the label {quoted(name)}"
            print(f"warning: {train_csv}: no row {words}; it keeps its column", file=sys.stderr)


def _truth(path: Path, competition: Competition, train_csv: Path, train_ids: pl.Series) -> pl.DataFrame:
    """Returns the generated demo's true means of the training rows, in their order."""
    header, columns = read_header(path, competition), [competition.id, *competition.outputs]
    diagnose.check_columns(path, header, columns, ignored=header)
    cells = scan_by_hand(path, header, columns, competition, strict=True).collect(engine="streaming")
    ids = cells[competition.id].alias("id")
    diagnose.check_ids(path, ids)
    diagnose.check_holds(path, ids, train_csv, train_ids)
    means = cells.select(pl.col(competition.outputs).cast(pl.Float64, strict=False))
    right, words = pl.all_horizontal(pl.all().is_finite()), "finite numbers"
    if competition.family.bounded:
        right, words = pl.all_horizontal(pl.all().is_between(0, 1)), "probabilities"
    if competition.outcome in ("classes", "choice"):
        right &= (pl.sum_horizontal(pl.all(), ignore_nulls=False) - 1).abs() < 1e-6
        words = "probabilities of the classes, with sum 1"
    wrong = ids.filter(~means.select(right.fill_null(False)).to_series())
    if len(wrong):
        raise PodiumError(f"{path}: id {quoted(wrong[0])}: expected {words}")
    return train_ids.to_frame().join(means.insert_column(0, ids), on="id", how="left", maintain_order="left")


def content_hash(rows: pl.LazyFrame, competition: Competition) -> str:
    """Returns the hex hash of all that training reads: the competition, and every id, label, group and text."""
    digest = hashlib.sha256(json.dumps(asdict(competition.as_learned()), sort_keys=True).encode())
    for batch in rows.collect_batches(chunk_size=ROW_GROUP, maintain_order=True):
        digest.update(batch.write_ndjson().encode())
    return digest.hexdigest()
