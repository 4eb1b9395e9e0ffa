"""The pushed dress rehearsal, once more at full size: which rows, and what it tells."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged import manifest_of, write_manifest

from pipeline.competitions.task import Competition
from pipeline.files import read_json
from pipeline.kernel.full_size import FIRST_ID, drawn
from pipeline.kernel.run import run
from pipeline.kernel.submission import validate_submission


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_every_row_comes_as_often_as_any_other_and_the_longest_of_a_fold_never(
    rows: int, folds: int, count: int
) -> None:
    lengths = [(7 * number) % 11 + 1 for number in range(rows * folds)]
    known = pl.DataFrame({"id": [f"r{n}" for n in range(rows * folds)], "text": [["x" * each] for each in lengths]})
    found = drawn(known, np.arange(rows * folds) % folds, count, ("text",))
    assert found["id"].to_list() == [str(FIRST_ID + number) for number in range(count)]
    times = Counter(found["text"].list.first().str.len_chars().to_list())
    assert found.schema == known.schema
    often = [times[each] for each, of in Counter(lengths).items() if of == 1 and times[each]]
    assert not often or max(often) - min(often) <= 1
    if rows > 1 and Counter(lengths)[max(lengths)] == 1:
        assert not times[max(lengths)]


@pytest.mark.slow
def test_the_pushed_kernel_runs_once_more_as_in_the_scored_rerun(
    package: Path,
    files: Path,
    working: Path,
    lmsys: Competition,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("PODIUM_INPUT", raising=False)  # which only Kaggle does without
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    write_manifest(package, manifest_of(package) | {"machine": "cpu", "rehearse_rows": 60})
    working.mkdir()
    shutil.copy(files / "sample_submission.csv", working / "submission.csv")
    run(package, files, working, time.monotonic(), False, {})
    report = read_json(working / "rehearsal.json")
    # A teammate's file knows none of these rows.
    assert report["full"]["rows"] == 60 and report["full"]["rows_per_rung"] == {"words+shape": 60}
    assert report["rows"] == 24 and set(report["timings"]) == {"words", "shape", "friend"}
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    told = capsys.readouterr().out
    assert "full size: 60 rows took" in told.splitlines()[-1] and "words+shape 60" in told.splitlines()[-1]
    assert "problem" not in told
