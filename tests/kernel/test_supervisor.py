"""The supervisor with real workers: its answer, its budgets, and every fault that PODIUM_FAULTS and files can cause."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from packaged import kernel_error, manifest_of, run_here, run_kernel
from support import geometric_mean

from pipeline.artifacts import Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.competitions.submission import as_submitted
from pipeline.competitions.task import Competition
from pipeline.ensemble.ladder import load_ladder
from pipeline.files import read_json
from pipeline.inference.predict import predict_member
from pipeline.ingest.prepare import read_test
from pipeline.kernel.submission import validate_submission
from pipeline.package.scene import accept, read_csv, write_csv

FULL = "words+shape+friend"
ANY = {"prior", "words", "shape", "friend", "words+shape", "words+friend", "shape+friend", FULL}


def written(working: Path) -> np.ndarray:
    return np.array([line[1:] for line in read_csv(working / "submission.csv")[1:]], dtype=float)


def plain_path(package: Path, files: Path, competition: Competition) -> np.ndarray:
    """What the full ensemble says, without workers, chunks, clock or files in between."""
    artifacts, rows = Artifacts(package), read_test(files / "test.csv", competition, strict=True)
    averages = {
        name: geometric_mean(
            [predict_member(artifacts.model(name, k), artifacts, rows, competition) for k in member["folds"]]
        )
        for name, member in manifest_of(package)["members"].items()
    }
    probabilities, names = load_ladder(artifacts.stack, competition).predict(averages, rows)
    assert set(names) == {FULL}
    return as_submitted(probabilities, load_competition("lmsys"))


def rungs(log: str) -> dict[str, int]:
    """Rows per rung, from the log."""
    (line,) = [line for line in log.splitlines() if line.startswith("rows per rung: ")]
    pairs = [each.rpartition(" ") for each in line.removeprefix("rows per rung: ").split(", ")]
    return {name: int(count) for name, _, count in pairs}


def longer(files: Path, times: int, rename: Callable[[str, int], str] = lambda id_, turn: f"{id_}-{turn}") -> None:
    """A test file with every row so many times, under new ids."""
    for name in ("test.csv", "sample_submission.csv"):
        header, *lines = read_csv(files / name)
        write_csv(files / name, [header, *([rename(r[0], t), *r[1:]] for t in range(times) for r in lines)])


def test_with_time_to_spare_it_is_the_plain_path(
    mounted: Path, package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    expected = plain_path(package, files, lmsys)
    done = run_here(mounted, working, rerun=True)
    assert rungs(done.stdout) == {FULL: 24}
    assert np.abs(written(working) - expected).max() <= 1e-12
    # Two workers that share the rows say the same.
    done = run_here(mounted, working.with_name("two"), rerun=True, PODIUM_FAULTS="devices=2")
    assert rungs(done.stdout) == {FULL: 24}
    assert np.abs(written(working.with_name("two")) - expected).max() <= 1e-12


FAULTS = {
    "a worker that is killed in the middle": ("kill=0.1", {FULL}, "tried again: its worker ended on cpu"),
    "workers that are always killed": (
        "kills=0.1",
        ANY,
        "dropped: its worker ended",
    ),
    "a worker that hangs": ("hang=2", {FULL}, "no word for"),
    "a long bucket that runs out of memory": ("memory=300", {FULL}, "tried again: out of memory: on purpose"),
    "a GPU whose context is dead": ("poison=2", {FULL}, "tried again: its worker ended on cpu"),
    "one of two GPUs whose context is dead": ("devices=2,poison=1", {FULL}, "tried again: its worker ended on cpu:0"),
    "rows without finite numbers": ("nan=1", ANY, ""),
    "one of two devices missing": ("devices=2,lost=1", {FULL}, "cpu:1 is lost"),
    "no room for results": ("full", {FULL}, "problem: results are not kept on disk from here on: No space left"),
    "everything five times slower": ("slow=5", {FULL}, ""),
    "a clock that jumps": ("clock=-86400", {FULL}, ""),
    "a supervisor that fails twice": ("stumble=6", ANY, "problem: RuntimeError: on purpose; once more"),
    "a planner that fails": ("plan", {FULL}, ""),
    "wheels that cannot be unpacked": ("wheels", {FULL}, "problem: wheels: on purpose"),
    "a fault that does not exist": ("gremlins=3", {FULL}, "problem: PODIUM_FAULTS: expected name=number"),
}


DEFAULT = (
    "a worker that is killed in the middle",
    "one of two GPUs whose context is dead",
    "a supervisor that fails twice",
    "no room for results",
)
"""The others, which `make kernel-faults` has too, are slow tests."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name.replace(" ", "-"), marks=() if name in DEFAULT else pytest.mark.slow)
        for name in FAULTS
    ],
)
def test_a_rerun_survives(mounted: Path, files: Path, working: Path, lmsys: Competition, name: str) -> None:
    faults, answered, says = FAULTS[name]
    budget, began = 60.0, time.monotonic()
    done = run_here(mounted, working, rerun=True, PODIUM_FAULTS=faults, PODIUM_BUDGET_SECONDS=str(budget))
    assert time.monotonic() - began < budget  # the budget is what it promises, not a speed
    assert done.returncode == 0, done.stdout + done.stderr
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    assert says in done.stdout
    if faults.startswith("stumble"):  # what was computed before each failure is answered
        assert len({tuple(line[1:]) for line in read_csv(working / "submission.csv")[1:]}) > 1
    else:
        assert set(rungs(done.stdout)) <= answered, done.stdout
    if "poison" in faults:  # the fold models have no part in it
        assert "dropped" not in done.stdout and done.stdout.count("tried again") == 1


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ("kills=0.1", "its worker ended on cpu"),
        ("memory=300", "out of memory: on purpose"),
        ("nan=1", "expected (finite numbers, found|its out-of-fold predictions)"),
        ("wheels", "wheels: on purpose"),
        ("devices=1,lost=0", "its worker ended on cpu:0"),
        ("gremlins", "PODIUM_FAULTS: expected name=number with a name of kill, "),
    ],
)
def test_the_dress_rehearsal_stops_for(mounted: Path, working: Path, faults: str, says: str) -> None:
    line = kernel_error(run_here(mounted, working, PODIUM_FAULTS=faults, PODIUM_BUDGET_SECONDS="60"))
    assert re.search(says, line)


@pytest.mark.parametrize("budget", [3.5, 6.0, 9.0])
def test_a_short_budget_is_kept_by_real_processes(
    mounted: Path, files: Path, working: Path, lmsys: Competition, budget: float
) -> None:
    began = time.monotonic()
    done = run_kernel(mounted, working, rerun=True, PODIUM_BUDGET_SECONDS=str(budget))
    assert time.monotonic() - began < budget
    assert done.returncode == 0, done.stdout + done.stderr
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


@pytest.mark.slow
def test_a_test_file_twenty_times_as_long_and_one_of_one_row(
    mounted: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    longer(files, 20)
    done = run_here(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 480
    assert rungs(done.stdout) == {"words+shape": 480}  # the teammate's file does not know the new ids
    # The same text has the same answer, wherever it stands.
    assert np.unique(written(working).round(12), axis=0).shape[0] <= 24
    for name in ("test.csv", "sample_submission.csv"):
        write_csv(files / name, read_csv(files / name)[:2])
    done = run_here(mounted, working.with_name("one"), rerun=True)
    assert done.returncode == 0
    assert rungs(done.stdout) == {"words+shape": 1}


@pytest.mark.slow
def test_the_samples_order_does_not_change_an_answer(
    mounted: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    run_here(mounted, working, rerun=True)
    before = {line[0]: line[1:] for line in read_csv(working / "submission.csv")}
    header, *lines = read_csv(files / "sample_submission.csv")
    write_csv(files / "sample_submission.csv", [header, *reversed(lines)])
    run_here(mounted, working.with_name("again"), rerun=True)
    assert {line[0]: line[1:] for line in read_csv(working.with_name("again") / "submission.csv")} == before


def test_workers_end_with_the_kernel(mounted: Path, working: Path) -> None:
    """Even where it is killed itself: nobody else would free the GPU."""
    environment = {"PATH": os.environ["PATH"], "PODIUM_INPUT": str(mounted), "PODIUM_WORKING": str(working)}
    environment["TMPDIR"] = str(working.parent)  # of a kernel that is killed here
    environment |= {"KAGGLE_IS_COMPETITION_RERUN": "1", "PODIUM_FAULTS": "hang=1", "PODIUM_BUDGET_SECONDS": "120"}
    from packaged import KERNEL, sys

    with subprocess.Popen([sys.executable, str(KERNEL)], env=environment, stdout=subprocess.DEVNULL) as kernel:
        # The process that waits, and the one that it waits for: each takes those below it with it.
        (serving,) = wait_for(lambda: children(kernel.pid, b"main.py"))
        workers = wait_for(lambda: children(serving, b"pipeline.kernel.worker"))
        kernel.send_signal(signal.SIGKILL)
        kernel.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (serving, *workers)))


def children(pid: int, word: bytes) -> list[int]:
    """Processes that `pid` has started and that have the word in their command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and word in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for(found: Callable[[], object], seconds: float = 30.0):  # type: ignore[no-untyped-def]
    """What `found` gives as soon as it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_the_plan_and_the_timings_are_told(mounted: Path, package: Path, working: Path) -> None:
    done = run_here(mounted, working)
    assert done.returncode == 0, done.stdout
    assert "plan:\n  step " in done.stdout
    report = read_json(working / "rehearsal.json")
    assert set(report["timings"]) == {"words", "shape", "friend"}
    for kinds in report["timings"].values():
        assert set(kinds) == {"cpu"}
        assert set(kinds["cpu"]) == {"load", "a", "b", "c", "noise"}
    hidden = report["hidden"]
    assert hidden["rows"] == 25000
    assert 0 < hidden["seconds"] <= hidden["upper_seconds"] < report["budget_seconds"]
    assert {entry["status"] for entry in report["plan"]} == {"done"}
    # Put beside the package, the timings are what the next run starts from.
    (package / "timings.json").write_text('{"words": {"cpu": {"load": 3599, "a": 1, "b": 1, "c": 0}}}')
    again = run_here(mounted, working.with_name("again"), rerun=True)
    assert again.returncode == 0
    assert "not begun: words fold 0, words fold 1" in again.stdout
    (package / "timings.json").write_text('{"words": {"cpu": {"load": "soon"}}}')
    assert rungs(run_here(mounted, working.with_name("third"), rerun=True).stdout) == {FULL: 24}


def test_an_accident_of_the_supervisor_loses_nothing(
    mounted: Path, files: Path, working: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.kernel.supervisor import Supervisor

    finished, calls = Supervisor._finished, []

    def stumble(self: Supervisor, *arguments: object) -> None:
        calls.append(arguments)
        finished(self, *arguments)  # type: ignore[arg-type]
        if len(calls) == 3:
            raise RuntimeError("stumbled")

    monkeypatch.setattr(Supervisor, "_finished", stumble)
    done = run_here(mounted, working, rerun=True)
    assert done.returncode == 0, done.stdout
    assert "problem: RuntimeError: stumbled; once more" in done.stdout
    assert rungs(done.stdout) == {FULL: 24}
    rows = sum(len(each[1].chunk.rows) for each in calls)  # type: ignore[attr-defined]
    assert rows == 24 * 6  # none was computed twice


def test_a_cut_off_weight_file_costs_its_fold_model_alone(mounted: Path, package: Path, working: Path) -> None:
    file = package / "members/words/fold0/weights.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    accept(package)
    done = run_here(mounted, working, rerun=True)
    assert "problem: words fold 0: dropped: " in done.stdout
    assert rungs(done.stdout) == {FULL: 24}


@pytest.mark.slow
def test_steps_that_are_left_out_are_named(mounted: Path, working: Path) -> None:
    done = run_here(mounted, working, rerun=True, PODIUM_BUDGET_SECONDS="12", PODIUM_FAULTS="slow=60")
    assert done.returncode == 0
    assert "not begun: " in done.stdout


def test_packaged_rows_are_asked_and_are_no_part_of_the_answer(mounted: Path, working: Path, package: Path) -> None:
    parity = pl.read_parquet(package / "parity.parquet")
    done = run_here(mounted, working)
    assert rungs(done.stdout) == {FULL: 24}
    assert f"step words fold 0: {24 + parity.filter(pl.col('fold') == 0).height} rows" in done.stdout
