"""The steps: their order, their average, the clock that ends them, and an answer equal to the plain path's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel.packaged import manifest_of, read_csv, write_csv

from pipeline.competitions.task import Competition
from pipeline.ensemble.ladder import load_ladder
from pipeline.ensemble.logits import geometric_mean
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.inference import steps
from pipeline.inference.job import Job, open_job
from pipeline.inference.kernel import margin
from pipeline.inference.parity import parity_differences, parity_part
from pipeline.inference.predict import predict_member
from pipeline.inference.steps import Step, average, plan_steps, run_steps
from pipeline.inference.submission import to_distribution, validate_submission


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def opened(package: Path, files: Path, working: Path, lmsys: Competition) -> Callable[..., Job]:
    """Opens the job as the script does, after it has written the prior."""

    def open_it(rerun: bool = True) -> Job:
        header, *lines = read_csv(files / "sample_submission.csv")
        working.mkdir(exist_ok=True)
        write_csv(working / "submission.csv", [header, *([line[0], "0.3", "0.3", "0.4"] for line in lines)])
        return open_job(package, files, working, rerun, {})

    return open_it


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock on which every prediction of test rows takes ten seconds."""
    time = Clock()

    def slow(folder: Path, rows: pl.DataFrame, competition: Competition) -> np.ndarray:
        time.now += 10.0
        return predict_member(folder, rows, competition)

    monkeypatch.setattr(steps, "predict_member", slow)
    return time


def written(working: Path) -> np.ndarray:
    return np.array([line[1:] for line in read_csv(working / "submission.csv")[1:]], dtype=float)


def plain_path(package: Path, rows: pl.DataFrame, competition: Competition) -> np.ndarray:
    """What the full ensemble says, without steps, clock or files in between."""
    averages = {
        name: geometric_mean(
            [predict_member(package / f"members/{name}/fold{fold}", rows, competition) for fold in member["folds"]]
        )
        for name, member in manifest_of(package)["members"].items()
    }
    probabilities, names = load_ladder(package / "stack", competition).predict(averages, rows)
    assert set(names) == {"words+shape+friend"}
    return to_distribution(probabilities)


def test_every_member_gets_a_turn_before_any_gets_its_second() -> None:
    members = {"a": {"folds": [0, 1, 2]}, "b": {"folds": [2]}, "c": {"folds": [0, 1]}}
    planned = [(step.member, step.fold) for step in plan_steps(members)]
    assert planned == [("a", 0), ("b", 2), ("c", 0), ("a", 1), ("c", 1), ("a", 2)]
    assert plan_steps({}) == []
    assert plan_steps({"a": {"folds": [4]}}) == [Step("a", 4)]


def test_with_time_to_spare_it_is_the_plain_path(
    opened: Callable[..., Job], package: Path, files: Path, working: Path, lmsys: Competition
) -> None:
    job = opened()
    run_steps(job, 0.0, np.inf, np.inf)
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24
    assert np.abs(written(working) - plain_path(package, job.rows, lmsys)).max() <= 1e-12


@pytest.mark.parametrize("budget", [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 45.0, 60.0, 1000.0])
def test_no_step_ends_after_the_deadline(
    opened: Callable[..., Job], clock: Clock, files: Path, working: Path, lmsys: Competition, budget: float
) -> None:
    start = clock.now
    run_steps(opened(), start, start + budget, budget, clock)
    # The first step's cost is not known; each later one begins only where ten seconds more still fit.
    done = min(6, max(1, int(budget // 10)))
    assert clock.now - start == 10.0 * done
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


def test_more_time_never_means_a_lower_rung(opened: Callable[..., Job], clock: Clock, working: Path) -> None:
    reached = []
    for budget in (-1.0, 10.0, 20.0, 30.0):
        start = clock.now
        run_steps(opened(rerun=False), start, start + budget, budget, clock)
        reached.append(read_json(working / "rehearsal.json"))
    ladder = ["prior", "words", "words+shape", "words+shape+friend"]
    assert [each["rows_per_rung"] for each in reached] == [{rung: 24} for rung in ladder]
    assert [[step["status"] for step in each["plan"]].count("done") for each in reached] == [0, 1, 2, 3]
    assert [each["parity_max_abs_diff"] is None for each in reached] == [True, False, False, False]


def test_fast_steps_do_not_spend_their_time_on_writing(
    opened: Callable[..., Job], monkeypatch: pytest.MonkeyPatch, working: Path
) -> None:
    written_at: list[float] = []
    clock = Clock()
    write = steps.write_submission

    def counted(*arguments: object) -> None:
        written_at.append(clock.now)
        clock.now += 2.0
        write(*arguments)  # type: ignore[arg-type]

    def quick(folder: Path, rows: pl.DataFrame, competition: Competition) -> np.ndarray:
        clock.now += 4.0
        return predict_member(folder, rows, competition)

    monkeypatch.setattr(steps, "write_submission", counted)
    monkeypatch.setattr(steps, "predict_member", quick)
    run_steps(opened(), clock.now, np.inf, np.inf, clock)
    # After the first step, then when five times the two seconds that writing took have passed, and at the end.
    assert written_at == [1004.0, 1018.0, 1028.0]


def test_margin_is_part_of_every_budget() -> None:
    assert margin(32400) == 1620
    assert margin(60) == 10
    assert margin(1) == 10


def test_one_row(opened: Callable[..., Job], files: Path, working: Path, lmsys: Competition) -> None:
    for name in ("test.csv", "sample_submission.csv"):
        write_csv(files / name, read_csv(files / name)[:2])
    run_steps(opened(), 0.0, np.inf, np.inf)
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 1


def test_equal_texts_get_equal_answers(opened: Callable[..., Job], files: Path, working: Path) -> None:
    header, first, *rest = read_csv(files / "test.csv")
    write_csv(files / "test.csv", [header, first, *([line[0], *first[1:]] for line in rest)])
    job = opened()
    del job.manifest["members"]["friend"]  # who answers by id
    run_steps(job, 0.0, np.inf, np.inf)
    assert len(np.unique(written(working), axis=0)) == 1


def test_the_samples_order_does_not_change_an_answer(
    opened: Callable[..., Job], files: Path, working: Path, lmsys: Competition
) -> None:
    run_steps(opened(), 0.0, np.inf, np.inf)
    before = {line[0]: line[1:] for line in read_csv(working / "submission.csv")}
    header, *lines = read_csv(files / "sample_submission.csv")
    write_csv(files / "sample_submission.csv", [header, *reversed(lines)])
    run_steps(opened(), 0.0, np.inf, np.inf)
    assert {line[0]: line[1:] for line in read_csv(working / "submission.csv")} == before
    assert validate_submission(working / "submission.csv", files / "sample_submission.csv", lmsys) == 24


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6))
def test_the_average_passes_over_what_is_missing(seed: int, models: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    parts = list(rng.dirichlet(np.ones(3), size=(models, rows)))
    assert np.allclose(average(parts), geometric_mean(parts), atol=1e-12)
    missing = rng.random((models, rows)) < 0.4
    for part, gone in zip(parts, missing, strict=True):
        part[gone, rng.integers(3)] = np.nan
    found = average(parts)
    for row in range(rows):
        spoken = [part[row : row + 1] for part, gone in zip(parts, missing, strict=True) if not gone[row]]
        if spoken:
            assert np.allclose(found[row], geometric_mean(spoken)[0], atol=1e-12)
        else:
            assert np.isnan(found[row]).all()


def test_parity_is_held_to_its_tolerance(package: Path, lmsys: Competition) -> None:
    parity = pl.read_parquet(package / "parity.parquet")
    folder = package / "members/shape/fold1"
    predicted = predict_member(folder, parity_part(parity, 1, lmsys), lmsys)
    assert parity_differences(predicted, "shape", 1, parity, "fp32", lmsys).shape == (32, 3)
    column = pl.col("shape/winner_model_a")
    for change, found in (
        (column + 1.5e-4, r"0\.00015"),
        (pl.lit(None, pl.Float64).alias(column.meta.output_name()), "nan"),
    ):
        with pytest.raises(
            PodiumError, match=f"shape fold 1: expected .* within 0.0001, found a difference of {found}"
        ):
            parity_differences(predicted, "shape", 1, parity.with_columns(change), "fp32", lmsys)


def test_half_precision_may_differ_a_little_but_not_lean_one_way(package: Path, lmsys: Competition) -> None:
    parity = pl.read_parquet(package / "parity.parquet")
    names = [f"shape/{name}" for name in lmsys.classes]
    expected = parity.filter(pl.col("fold") == 1).select(names).to_numpy()
    noise = np.random.default_rng(0).normal(scale=1.0e-3, size=expected.shape)
    assert parity_differences(expected + noise, "shape", 1, parity, "fp16", lmsys).max() < 2.0e-2
    some = (np.arange(len(expected)) < 0.15 * len(expected))[:, None]
    for change, found in (
        (3.0e-2 * some, "a difference of"),
        (8.0e-3, "a mean difference of"),
        (some * [1.9e-2, -1.9e-2, 0.0], "an expected log loss higher by"),
    ):
        with pytest.raises(PodiumError, match=f"shape fold 1: expected .*, found {found} [0-9]"):
            parity_differences(expected + change, "shape", 1, parity, "fp16", lmsys)


def test_an_unknown_kind_is_named(tmp_path: Path, lmsys: Competition) -> None:
    (tmp_path / "member.json").write_text('{"kind": "forest"}')
    with pytest.raises(PodiumError, match="kind: expected tabular, external, encoder or decoder, found forest"):
        predict_member(tmp_path, pl.DataFrame(), lmsys)
