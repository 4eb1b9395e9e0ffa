"""`dvc repro` as a user runs it, in a temporary clone of this checkout with a small generated competition."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
from clones import edit, ran, sh


def test_it_ends_with_a_valid_submission_and_a_page(clone: Path) -> None:
    rehearsal = json.loads((clone / "metrics" / "rehearsal.json").read_text())
    assert rehearsal["valid"] is True
    assert rehearsal["network"] in ("namespace", "sockets")
    assert rehearsal["parity_max_abs_diff"] < 1e-4
    assert rehearsal["rows"] == 60 == sum(rehearsal["rows_per_rung"].values())
    submission = pl.read_csv(clone / "artifacts" / "rehearsal" / "submission.csv", infer_schema=False)
    sample = pl.read_csv(clone / "data" / "demo" / "sample_submission.csv", infer_schema=False)
    assert submission.columns == sample.columns
    assert submission["id"].equals(sample["id"])
    numbers = submission.drop("id").cast(pl.Float64)
    assert (numbers.sum_horizontal() - 1).abs().max() < 1e-9
    cv = json.loads((clone / "metrics" / "cv.json").read_text())
    assert cv["bayes"] < cv["stack"]["score"] < cv["prior"]
    assert set(cv["members"]) == {"words", "shape"}
    page = (clone / "reports" / "index.html").read_text()
    assert f"{cv['stack']['score']:.4f}" in page


def test_nothing_to_do_runs_nothing(clone: Path) -> None:
    assert ran(sh("dvc repro", clone)) == set()


def test_git_sees_only_what_a_user_commits(clone: Path) -> None:
    shown = sh("git status --porcelain --untracked-files=all", clone).split()
    metrics = {f"metrics/{name}.json" for name in ("cv", "probe", "rehearsal", "pretrain/none")}
    assert set(shown[1::2]) == metrics | {"dvc.lock"}


@pytest.mark.slow
def test_neither_a_comment_nor_the_code_of_another_kind_reruns_a_fold(clone: Path) -> None:
    for name in ("pipeline/models/tabular/model.py", "pipeline/members/fold.py", "pipeline/data/folds.py"):
        file = clone / name
        file.write_text(file.read_text() + "\n# A comment.\n")
    file = clone / "pipeline" / "members" / "external.py"
    changed = file.read_text().replace("TOLERANCE = 1.0e-3", "TOLERANCE = 2.0e-3")
    assert changed != file.read_text()
    file.write_text(changed)
    again = ran(sh("dvc repro oof", clone))  # as far as the folds, and what is first of all that reads them
    assert not {name for name in again if name.startswith(("finetune", "oof"))}
    assert "start" in again


def test_one_members_params_rerun_its_folds_and_what_follows(clone: Path) -> None:
    edit(clone, "members", "words", "words", "max_features", value=1000)
    again = ran(sh("dvc repro package", clone))
    assert {name for name in again if name.startswith("finetune")} == {"finetune@words-0", "finetune@words-1"}
    assert {"oof", "stack", "package"} <= again
    assert {"rehearse", "report"} <= set(json.loads(sh("dvc status --json", clone)))


@pytest.mark.parametrize("place", ["the folder", "folder and cache"])
@pytest.mark.slow
def test_a_truncated_table_is_noticed_and_made_anew(clone: Path, place: str) -> None:
    sh("dvc repro folds", clone)
    table = clone / "artifacts" / "folds.parquet"
    whole = table.read_bytes()
    if place == "folder and cache":
        name = hashlib.md5(whole).hexdigest()
        cached = clone / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
        cached.chmod(0o644)
        cached.write_bytes(whole[:100])
    table.write_bytes(whole[:100])
    assert ran(sh("dvc repro folds", clone)) == ({"folds"} if place == "folder and cache" else set())
    assert table.read_bytes() == whole
