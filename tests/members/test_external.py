from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import preference_rows, write_artifacts, write_external

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import Split
from pipeline.errors import PodiumError
from pipeline.inference.predict import predict_member
from pipeline.members import external
from pipeline.members.context import Run
from pipeline.members.fold import quick_look, train_fold
from pipeline.training.checkpoint import Checkpoint


@pytest.fixture
def rows() -> pl.DataFrame:
    return preference_rows(40)


def split(rows: pl.DataFrame) -> Split:
    return Split(rows[:24], rows[24:32], rows[32:])


def run(root: Path) -> Run:
    return Run("friend fold 0", Artifacts(root / "artifacts"), Checkpoint(root / "checkpoint"))


def test_predictions_come_back_by_id_and_unknown_rows_are_nan(
    rows: pl.DataFrame, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = write_external(tmp_path, "friend", rows, lmsys, 1.0)
    external.train(split(rows), start, tmp_path / "model", run(tmp_path))
    wanted = pl.read_csv("external/friend.csv", schema_overrides={"id": pl.String})
    stranger = rows[:1].with_columns(pl.lit("stranger").alias("id"))
    asked = pl.concat([rows[30:35], stranger, rows[:3]])
    answer = predict_member(tmp_path / "model", Artifacts(tmp_path), asked, lmsys)
    assert np.isnan(answer[5]).all()
    known = [*range(5), 6, 7, 8]
    expected = wanted.drop("id").to_numpy()[[30, 31, 32, 33, 34, 0, 1, 2]]
    assert np.allclose(answer[known], expected, atol=1e-9)
    artifacts = write_artifacts(tmp_path, rows, lmsys, np.zeros(len(rows)))
    before = sorted(artifacts.rglob("*"))
    assert quick_look(split(rows), start, 0, 10, Artifacts(artifacts)).score > 0
    assert sorted(artifacts.rglob("*")) == before  # a quick look leaves nothing behind


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.drop("winner_tie"), 'column "winner_tie" is missing'),
        (lambda f: f.rename({"winner_tie": "winer_tie"}), '(did you mean "winer_tie"?)'),
        (lambda f: f.filter(pl.col("id") != "1025"), "1 of 8 ids of the fold are missing, the first is 1025"),
        (lambda f: f.with_columns(pl.col("id") + ".0"), 'the first is 1024 (did you mean "1024.0", as it stands'),
        (lambda f: f.with_columns(id=" " + pl.col("id")), 'the first is 1024 (did you mean " 1024", as it stands'),
        (lambda f: f.filter(pl.col("id") != "1035"), "1 of 8 ids of the holdout are missing, the first is 1035"),
        (lambda f: pl.concat([f, f[:1]]), 'column "id": id 1000 stands more than once'),
        (lambda f: f.with_columns(winner_tie=pl.lit(0.9)), "id 1000: expected probabilities that sum to 1, found ["),
        (lambda f: f.with_columns(winner_tie=pl.lit("high")), "id 1000: expected probabilities that sum to 1, found ["),
        (lambda f: f.with_columns(winner_tie=pl.lit(None)), "id 1000: expected probabilities"),
    ],
)
def test_a_wrong_file_is_one_line(
    change: object,
    expected: str,
    rows: pl.DataFrame,
    lmsys: Competition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    start = write_external(tmp_path, "friend", rows, lmsys, 1.0)
    file = Path("external/friend.csv")
    change(pl.read_csv(file, schema_overrides={"id": pl.String})).write_csv(file)  # type: ignore[operator]
    with pytest.raises(PodiumError) as caught:
        external.train(split(rows), start, tmp_path / "model", run(tmp_path))
    assert str(caught.value).startswith("external/friend.csv: ")
    assert expected in str(caught.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("friend.parquet", "not parquet", "friend.parquet: expected a parquet file, found: "),
        ("friend.csv", "{header},id\n", 'friend.csv: column "id" stands twice in the header'),
        ("friend.csv", '{header},note\n1,.2,.3,.5,"5" pipe"\n2,.2,.3,.5,"6" pipe"\n', "friend.csv: row 1 .*RFC 4180"),
        ("friend.csv", "{header}\n1,.2,.3\n", "friend.csv: row 1 .*: expected 4 fields, found 3"),
        ("friend.csv", "", "friend.csv: expected a line of column names, found an empty file"),
    ],
)
def test_an_unreadable_file_is_one_line(
    name: str, content: str, expected: str, tmp_path: Path, lmsys: Competition
) -> None:
    (tmp_path / name).write_text(content.format(header=",".join(["id", *lmsys.outputs])))
    with pytest.raises(PodiumError, match=expected):
        external.read_predictions(tmp_path / name, lmsys)


def test_a_fold_that_the_member_does_not_train_writes_empty_parts(
    rows: pl.DataFrame, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts = write_artifacts(tmp_path, rows, lmsys, np.repeat([0, 1, -1], [24, 8, 8]))
    start = write_external(tmp_path, "friend", rows, lmsys, 1.0)
    start = replace(start, settings=replace(start.settings, folds=(0,)))
    (artifacts / "start").mkdir()
    (artifacts / "start" / "friend.json").write_text("{}")
    assert train_fold(split(rows), start, 0, Artifacts(artifacts)) is not None
    assert train_fold(split(rows), start, 1, Artifacts(artifacts)) is None
    full = pl.read_parquet(artifacts / "oof" / "friend" / "fold0.parquet")
    empty = pl.read_parquet(artifacts / "oof" / "friend" / "fold1.parquet")
    assert (len(full), len(empty)) == (8, 0)
    assert full.schema == empty.schema
