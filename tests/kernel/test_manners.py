"""The kernel's two manners, each fault in both: the dress rehearsal stops with one line and exit code 2, the scored
rerun goes on, exits with 0, names what is wrong and leaves a valid submission.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from packaged import kernel_error, manifest_of, run_here, run_kernel, write_manifest

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.kernel.run import run
from pipeline.kernel.submission import validate_submission
from pipeline.package.faults import break_wheels, unknown_kind
from pipeline.package.scene import accept, flip, read_csv, write_csv


@dataclass(frozen=True)
class Fault:
    """Something that breaks, what the rehearsal says about it, and what still answers in the rerun."""

    name: str
    cause: Callable[[Path, Path], None]
    """Gets the package and the competition's folder."""
    says: str
    rungs: tuple[str, ...]
    """Names of which at least one answers rows in the rerun."""


def lose_parity(package: Path, files: Path) -> None:
    parity = pl.read_parquet(package / "parity.parquet")
    parity.with_columns(pl.col("words/winner_tie") + 2e-4).write_parquet(package / "parity.parquet")
    accept(package)


def forget_a_row(package: Path, files: Path) -> None:
    """A member that may not pass over rows has no answer for one."""
    file = package / "members/friend/fold0/predictions.parquet"
    identity = read_csv(files / "test.csv")[1][0]
    pl.read_parquet(file).filter(pl.col("id") != identity).write_parquet(file)
    accept(package)
    manifest = manifest_of(package)
    manifest["members"]["friend"]["kind"] = "tabular"
    write_manifest(package, manifest)


def spoil_a_cell(package: Path, files: Path) -> None:
    header, first, *rest = read_csv(files / "test.csv")
    write_csv(files / "test.csv", [header, [first[0], '["never closed', *first[2:]], *rest])


def drop_a_column(package: Path, files: Path) -> None:
    write_csv(files / "test.csv", [line[:-1] for line in read_csv(files / "test.csv")])


ALL = ("words+shape+friend",)
FAULTS = [
    Fault(
        "a changed byte in a member", lambda p, _: flip(p / "members/words/fold0/member.json"), "expected sha256", ALL
    ),
    Fault(
        "a missing member file",
        lambda p, _: (p / "members/words/fold1/member.json").unlink(),
        "found No such file",
        ALL,
    ),
    Fault(
        "a changed byte in the code", lambda p, _: flip(p / "code/pipeline/errors.py"), "expected sha256", ("prior",)
    ),
    Fault("a changed byte in the stack", lambda p, _: flip(p / "stack/ladder.json"), "expected sha256", ("mean",)),
    Fault(
        "a wheel that is no zip file", lambda p, _: break_wheels(p), "cannot be unpacked: File is not a zip file", ALL
    ),
    Fault("lost parity", lose_parity, "words fold 0: expected its out-of-fold predictions within 0.0001", ALL),
    Fault("a row without a number", forget_a_row, "friend fold 0: expected finite numbers, found 1 rows", ALL),
    Fault(
        "a kind that does not exist",
        lambda p, _: unknown_kind(p),
        "kind: expected one of tabular, encoder, decoder, external, found crystal_ball",
        ALL,
    ),
    Fault("a cell that is no list of turns", spoil_a_cell, "test.csv", ALL),
    Fault("a test file without a column", drop_a_column, "response_b", ("prior",)),
]
IDS = [fault.name.replace(" ", "-") for fault in FAULTS]


def test_a_whole_package_passes_its_dress_rehearsal(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    done = run_here(mounted, working)
    assert done.returncode == 0, done.stdout + done.stderr
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    report = read_json(working / "rehearsal.json")
    assert report["budget_seconds"] == manifest_of(package)["budget_seconds"]
    assert report["rungs"] == [
        *("prior", "words", "shape", "friend"),
        *("words+shape", "words+friend", "shape+friend", "words+shape+friend"),
    ]
    assert (report["rows"], report["rows_per_rung"]) == (24, {"words+shape+friend": 24})
    assert set(report["parity"]) == {"words", "shape", "friend"}
    assert report["parity_max_abs_diff"] == max(each["max"] for each in report["parity"].values()) <= 1e-4
    assert {(step["member"], step["fold"], step["status"]) for step in report["plan"]} == {
        (name, fold, "done") for fold in (0, 1) for name in ("words", "shape", "friend")
    }
    assert sum(line.startswith("step ") for line in done.stdout.splitlines()) == 6
    assert sorted(path.name for path in working.iterdir()) == ["rehearsal.json", "submission.csv"]
    assert not list(package.rglob("__pycache__"))


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_the_dress_rehearsal_stops_with_one_line(
    mounted: Path, package: Path, files: Path, working: Path, fault: Fault
) -> None:
    fault.cause(package, files)
    assert fault.says in kernel_error(run_here(mounted, working))
    assert not (working / "rehearsal.json").exists()


@pytest.mark.parametrize(
    "fault", [FAULTS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FAULTS[1:])], ids=IDS
)
def test_the_scored_rerun_goes_on_to_a_valid_file(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition, fault: Fault
) -> None:
    fault.cause(package, files)
    done = run_here(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    rows = np.array([line[1:] for line in read_csv(working / "submission.csv")[1:]], dtype=float)
    answered = [line for line in done.stdout.splitlines() if line.startswith("rows per rung: ")]
    if fault.rungs == ("prior",):
        assert not answered
        assert (rows == list(manifest_of(package)["prior"].values())).all()
    else:
        assert any(f" {rung} " in answered[0] for rung in fault.rungs)
        assert np.unique(rows, axis=0).shape[0] > 12
    if fault.name not in ("lost parity", "a cell that is no list of turns"):  # which a rerun has no business to notice
        named = [
            line for line in done.stdout.splitlines() if line.startswith(("problem:", "error:")) or "dropped" in line
        ]
        assert named or fault.name == "a row without a number"


def test_a_rerun_survives_everything_at_once(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    unknown_kind(package)
    spoil_a_cell(package, files)
    forget_a_row(package, files)
    break_wheels(package)
    flip(package / "stack/ladder.json")
    flip(package / "members/words/fold0/member.json")
    done = run_kernel(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows per rung: mean 24" in done.stdout
    assert sum(" dropped: " in line for line in done.stdout.splitlines()) == 2
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


def test_a_rerun_without_a_package_keeps_the_samples_form(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    (package / "MANIFEST.json").write_text("[]")
    done = run_here(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problem: " in done.stdout
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


def test_a_member_that_is_lost_altogether_leaves_the_others_to_answer(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    for fold in (0, 1):
        (package / f"members/words/fold{fold}/member.json").unlink()
    done = run_here(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum("words fold" in line and "dropped" in line for line in done.stdout.splitlines()) == 2
    assert "rows per rung: shape+friend 24" in done.stdout
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


def test_a_hidden_test_file_with_new_ids_falls_back_from_external_members(
    mounted: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    for name in ("test.csv", "sample_submission.csv"):
        header, *lines = read_csv(files / name)
        write_csv(files / name, [header, *([f"hidden-{line[0]}", *line[1:]] for line in lines)])
    done = run_here(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows per rung: words+shape 24" in done.stdout
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


@pytest.mark.parametrize("asked", ["soon", "-5", "nan"])
def test_a_budget_that_is_no_number_of_seconds(mounted: Path, working: Path, asked: str) -> None:
    line = kernel_error(run_here(mounted, working, PODIUM_BUDGET_SECONDS=asked))
    assert line == f"error: PODIUM_BUDGET_SECONDS: expected a positive number of seconds, found {asked}"


def test_a_rerun_takes_the_packages_budget_instead(mounted: Path, working: Path) -> None:
    done = run_here(mounted, working, rerun=True, PODIUM_BUDGET_SECONDS="soon")
    assert done.returncode == 0
    assert "problem: PODIUM_BUDGET_SECONDS is soon" in done.stdout
    assert ", 600 s; devices: " in done.stdout


@pytest.mark.parametrize("rerun", [False, True])
def test_a_budget_that_is_over_at_once_leaves_the_prior(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition, rerun: bool
) -> None:
    done = run_here(mounted, working, rerun, PODIUM_BUDGET_SECONDS="1")
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    rows = np.array([line[1:] for line in read_csv(working / "submission.csv")[1:]], dtype=float)
    assert (rows == list(manifest_of(package)["prior"].values())).all()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rerun", [False, True])
def test_another_machine_than_kaggle_was_asked_for(
    package: Path,
    files: Path,
    working: Path,
    rerun: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The package asks for t4x2; what it runs on here has no GPU. Only on Kaggle is the input where it always is."""
    monkeypatch.delenv("PODIUM_INPUT", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    working.mkdir()
    shutil.copy(files / "sample_submission.csv", working / "submission.csv")
    problem = "params.yaml: package.machine: asked Kaggle for t4x2, found no GPU"
    with nullcontext() if rerun else pytest.raises(PodiumError, match=problem):
        run(package, files, working, time.monotonic(), rerun, {})
    assert (f"problem: {problem}" in (told := capsys.readouterr().out)) == rerun
    assert ("rows per rung: words+shape+friend 24" in told) == rerun
