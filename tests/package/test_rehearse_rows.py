"""The rehearsal at the hidden test's size: rows made from train, the scored rerun on them, and what it refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from packaged import manifest_of, write_manifest

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.ingest.cells import plain_rows, read_header
from pipeline.ingest.prepare import read_test
from pipeline.package.rehearse_rows import make_rows, rehearse_rows
from pipeline.package.scene import accept, read_csv, write_table

STUB = """import shutil
def run(package, data, working, started, rerun, broken):
    print("problem: a fold model is broken" if (data / "trouble").exists() else f"rerun {rerun}, {len(broken)} broken")
"""


@pytest.fixture
def stubbed(package: Path) -> Path:
    """A package whose kernel leaves the prior."""
    (package / "code/pipeline/kernel/run.py").write_text(STUB)
    accept(package)
    return package


@pytest.mark.parametrize(("ending", "rows"), [("csv", 1), ("tsv", 300), ("jsonl", 520), ("parquet", 700)])
def test_every_row_of_train_comes_as_often_as_any_other(
    finished: Path, tmp_path: Path, lmsys: Competition, ending: str, rows: int
) -> None:
    data, target = tmp_path / "data", tmp_path / "made"
    data.mkdir()
    target.mkdir()
    names = {"train": f"train.{ending}", "test": f"test.{ending}", "separator": "\t" if ending == "tsv" else ","}
    competition = replace(lmsys, **names)
    for part in ("train", "test"):
        source = finished / "data" / f"{part}.csv"
        cells = list(plain_rows(source, lmsys, strict=True))
        write_table(data / f"{part}.{ending}", read_header(source, lmsys), cells, competition)
    (data / "sample_submission.csv").write_bytes((finished / "data/sample_submission.csv").read_bytes())
    make_rows(data, target, rows, competition)
    made = read_test(target / competition.test, competition, strict=True)
    assert made["id"].n_unique() == len(made) == rows
    texts = Counter(made["prompt"].to_list().__str__() for made in made.iter_slices(1))
    train = pl.read_parquet(finished / "artifacts/competition/train.parquet")
    known = Counter(row["prompt"].to_list().__str__() for row in train.iter_slices(1))
    assert all(abs(texts[text] - rows * often / len(train)) <= often for text, often in known.items())
    assert set(texts) <= set(known)
    assert [line[0] for line in read_csv(target / "sample_submission.csv")[1:]] == made["id"].to_list()
    again = tmp_path / "again"
    again.mkdir()
    make_rows(data, again, rows, competition)
    assert (again / competition.test).read_bytes() == (target / competition.test).read_bytes()


def test_the_kernel_runs_as_in_the_scored_rerun_and_nothing_is_kept(
    stubbed: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    rehearse_rows(stubbed, finished / "data", 700, None, tmp_path / "work")
    told = capsys.readouterr().out
    assert "kernel: prior written for 700 rows" in told
    assert "kernel: rerun True, 0 broken" in told
    assert "here: 700 rows took " in told
    assert "on package.machine t4x2, by nominal figures" in told
    assert "700 rows within 600 s would be:" in told
    assert list((tmp_path / "work").iterdir()) == []
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*")} == before


def test_a_problem_of_the_kernel_is_an_error(stubbed: Path, finished: Path, tmp_path: Path) -> None:
    (stubbed / "members/words/fold0/member.json").unlink()
    with pytest.raises(PodiumError, match=r"met 1 problems, the first: problem: .*words/fold0/member.json: expected a"):
        rehearse_rows(stubbed, finished / "data", 5, None, tmp_path / "work")


@pytest.mark.parametrize(
    ("rows", "hidden", "says"),
    [
        (0, 10, "ROWS: expected a positive number of rows, found 0"),
        (None, None, "ROWS: lmsys-chatbot-arena does not say how many rows it hides: name a number of rows"),
    ],
)
def test_a_number_of_rows_is_needed(
    package: Path, finished: Path, tmp_path: Path, rows: int | None, hidden: int | None, says: str
) -> None:
    manifest = manifest_of(package)
    manifest["competition"]["hidden_rows"] = hidden
    write_manifest(package, manifest)
    with pytest.raises(PodiumError) as caught:
        rehearse_rows(package, finished / "data", rows, None, tmp_path / "work")
    assert str(caught.value) == says
    with pytest.raises(PodiumError, match="no package here; run `make repro`"):
        rehearse_rows(tmp_path / "nowhere", finished / "data", 5, None, tmp_path / "work")


@pytest.mark.slow
def test_a_whole_package_answers_all_rows(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timings = {"words": {"t4": {"load": 0.5, "a": 0.1, "b": 1.0e-6, "c": 0.0, "noise": 0.1}}}
    rehearse_rows(finished / "artifacts/package", finished / "data", 400, timings, tmp_path / "work")
    told = capsys.readouterr().out
    assert "kernel: rows per rung: words+shape 400" in told  # a teammate's file knows no new row
    assert "timed by the last dress rehearsal on Kaggle" in told
