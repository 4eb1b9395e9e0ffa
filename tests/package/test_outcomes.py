"""Every kind of answer from CSV to the kernel: the dress rehearsal, and a hidden test file as Kaggle has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from outcomes import COMPETITIONS, laid_out
from packaged import build_prepared, mount, run_here

from pipeline.artifacts import Artifacts
from pipeline.competitions.submission import submission_columns
from pipeline.ingest.prepare import prepare
from pipeline.kernel.submission import validate_submission
from pipeline.package.scene import read_csv, write_csv

PARAMS = """
data: {path: data, competition: lmsys}
demo: {train_rows: 260, test_rows: 24, seed: 20}
folds: {ids: [0, 1], holdout: 0.1, seed: 5}
threads: 1
backbones: {none: {source: none}}
members:
  words: {kind: tabular, backbone: none, model: logistic, words: {longest: 1, max_features: 200, min_df: 1}}
  trees: {kind: tabular, backbone: none, model: lightgbm, boosting: {max_trees: 8}}
stack: {candidates: [mean, weights], seed: 3}
package: {owner: somebody, slug: some-package, title: Some package, budget_seconds: 600}
"""
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("ordered", "ranked", "labels", "binary", "pair", "winner")
]


@pytest.mark.parametrize("name", ["choices", *SLOW])
def test_from_files_to_the_kernels_answers(name: str, tmp_path: Path) -> None:
    competition = COMPETITIONS[name]
    root = tmp_path / "run"
    root.mkdir()
    (root / "params.yaml").write_text(PARAMS)
    laid_out(competition, root / "data", 160, 12)
    prepare(root / "data", replace(competition, centre=(), spread=()), root / Artifacts().competition_folder)
    build_prepared(root)
    files = tmp_path / "input" / "small-competition"
    mounted = mount(root, tmp_path / "input", files="small-competition")
    done = run_here(mounted, tmp_path / "working")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows per rung: words+trees 12" in done.stdout
    assert validate_submission(tmp_path / "working/submission.csv", files / "sample_submission.csv", competition) == 12

    # The hidden file: more rows in another order, new ids, a missing text.
    header, *lines = read_csv(files / "test.csv")
    hidden = [[f"{line[0]}-{copy}", *line[1:]] for copy in range(3) for line in reversed(lines)]
    hidden[4][1] = ""
    write_csv(files / "test.csv", [header, *hidden])
    columns = submission_columns(competition)
    sample = [["id", *columns], *([line[0], *("0" for _ in columns)] for line in reversed(hidden))]
    write_csv(files / "sample_submission.csv", sample)
    done = run_here(mounted, tmp_path / "hidden", rerun=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows per rung: words+trees 36" in done.stdout
    assert validate_submission(tmp_path / "hidden/submission.csv", files / "sample_submission.csv", competition) == 36
