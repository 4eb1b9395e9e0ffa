"""The planner: gain per second, upper bounds, the rows that gain most where not all fit; and its command."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaged import manifest_of, write_manifest
from support import CLASSES, error_line, run_module

from pipeline.ensemble.ladder import Rung
from pipeline.errors import PodiumError
from pipeline.planning import forecast
from pipeline.planning.cost import Costs
from pipeline.planning.gain import ExpectedGain, averaged_share, expected_gain
from pipeline.planning.plan import LEFTOVER, Planned, Situation, plan
from pipeline.planning.steps import Load, Step

ROWS = 200
COSTS = {"cheap": 0.01, "good": 0.1, "slow": 1.0}
"""Seconds per row on the one device."""
MEMBERS = {name: {"kind": "tabular", "folds": [0, 1], "passes": ["first"]} for name in COSTS}
RUNGS = (
    Rung("prior", (), None, loss=1.1),
    Rung("cheap", ("cheap",), None, loss=1.0, averaging=0.01),
    Rung("good", ("good",), None, loss=0.95, averaging=0.01),
    Rung("slow", ("slow",), None, loss=0.96, averaging=0.01),
    Rung("cheap+good", ("cheap", "good"), None, loss=0.9, averaging=0.02),
    Rung("cheap+good+slow", ("cheap", "good", "slow"), None, loss=0.85, averaging=0.02),
)
EXPECTED = ExpectedGain(RUNGS, {name: 2 for name in COSTS}, {}, CLASSES)


def situation(seconds: float, done: tuple[Step, ...] = (), unsure: np.ndarray | None = None) -> Situation:
    loads = {
        Step(name, fold): Load(np.full(ROWS, cost), np.zeros(ROWS), np.ones(ROWS, dtype=bool))
        for name, cost in COSTS.items()
        for fold in (0, 1)
    }
    flat = np.full((ROWS, 3), 1 / 3) if unsure is None else np.stack([1 - unsure, unsure / 2, unsure / 2], axis=1)
    masks = {step: np.full(ROWS, step not in done) for step in loads}
    return Situation(masks, loads, frozenset(), {"cpu": seconds}, lambda *_: True, 1e9, flat, np.full(ROWS, 100.0))


def costs() -> Costs:
    """A token costs a second; loading and chunks nothing; all of it well known."""
    timings = {name: {"cpu": {"load": 0.0, "a": 0.0, "b": 1.0, "c": 0.0}} for name in COSTS}
    found = Costs(MEMBERS, {"cpu": "cpu"}, timings)
    for name in COSTS:
        for _ in range(30):
            found.observe(name, "cpu", 10.0, 0.0, 10.0)
    return found


def steps(planned: list[Planned]) -> list[str]:
    return [f"{each.step.member}{each.step.fold}" for each in planned]


def test_the_best_gain_per_second_comes_first() -> None:
    planned = plan(situation(1e6), costs(), EXPECTED)
    assert steps(planned)[:3] == ["cheap0", "good0", "cheap1"]
    assert sorted(steps(planned)) == sorted(f"{name}{fold}" for name in COSTS for fold in (0, 1))
    assert all(each.rows is None for each in planned)
    ratios = [each.gain / each.seconds for each in planned]
    assert all(later <= 1.3 * earlier for earlier, later in pairwise(ratios))  # near-equals keep their order
    # Together the gains are what the ladder says of the full set.
    assert sum(each.gain for each in planned) == pytest.approx(1.1 - (0.85 - 0.02))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 600.0), st.integers(0, 6))
def test_no_plan_is_longer_than_the_time(seconds: float, finished: int) -> None:
    done = tuple(Step(name, fold) for name in COSTS for fold in (0, 1))[:finished]
    planned = plan(situation(seconds, done), costs(), EXPECTED)
    assert sum(each.seconds for each in planned) <= seconds
    assert not set(done) & {each.step for each in planned}
    assert all(each.upper >= each.seconds for each in planned)


@settings(max_examples=40, deadline=None)
@given(st.floats(1.0, 300.0), st.floats(1.0, 2.0))
def test_more_time_never_plans_less_gain(seconds: float, more: float) -> None:
    gains = [sum(each.gain for each in plan(situation(s), costs(), EXPECTED)) for s in (seconds, seconds * more)]
    assert gains[1] >= gains[0] - 1e-9


def test_where_a_part_fits_it_is_the_rows_that_gain_most() -> None:
    unsure = np.linspace(0.05, 0.6, ROWS)
    expected = replace(EXPECTED, rungs=tuple(replace(rung, priority=(0.0, 1.0, 0.0, 0.0, 0.0)) for rung in RUNGS))
    done = (Step("cheap", 0), Step("cheap", 1), Step("good", 0), Step("good", 1))
    (only,) = plan(situation(60.0, done, unsure), costs(), expected)
    assert only.step.member == "slow"
    assert only.rows is not None
    chosen = np.flatnonzero(only.rows)
    assert 30 < len(chosen) <= 60  # 1 s each, with room for the upper bound
    assert chosen.min() == ROWS - len(chosen)
    assert only.gain > len(chosen) / ROWS * (0.9 - 0.85)  # more than their share of the step's gain


def test_a_part_too_small_to_load_for_is_left_out() -> None:
    timings = {name: {"cpu": {"load": 50.0, "a": 0.0, "b": 1.0, "c": 0.0}} for name in COSTS}
    dear = Costs(MEMBERS, {"cpu": "cpu"}, timings)
    assert plan(situation(55.0), dear, EXPECTED) == []
    done = (Step("cheap", 0), Step("cheap", 1), Step("good", 0), Step("good", 1))
    assert plan(situation(60.0, done), dear, EXPECTED) == []


def test_members_that_help_only_together_are_planned_together() -> None:
    rungs = (
        Rung("prior", (), None, loss=1.1),
        Rung("cheap", ("cheap",), None, loss=1.0),
        Rung("cheap+good", ("cheap", "good"), None, loss=1.0),
        Rung("cheap+slow", ("cheap", "slow"), None, loss=1.0),
        Rung("cheap+good+slow", ("cheap", "good", "slow"), None, loss=0.7),
    )
    expected = ExpectedGain(rungs, {name: 1 for name in COSTS}, {}, CLASSES)
    planned = plan(situation(1e6), costs(), expected)
    assert steps(planned)[:3] == ["cheap0", "good0", "slow0"]
    assert planned[1].gain == pytest.approx(0.15)


def test_what_is_expected_to_gain_nothing_runs_last_and_only_whole() -> None:
    rungs = (*RUNGS[:5], replace(RUNGS[5], loss=0.93, averaging=0.0))
    expected = ExpectedGain(rungs, {name: 2 for name in COSTS}, {}, CLASSES)
    planned = plan(situation(1e6), costs(), expected)
    assert steps(planned)[-2:] == ["slow0", "slow1"]
    assert all(each.gain <= LEFTOVER for each in planned[-2:])
    assert "slow0" not in steps(plan(situation(150.0), costs(), expected))


def test_a_step_that_no_device_may_run_is_not_planned() -> None:
    now = situation(1e6)
    now = replace(now, may=lambda member, device: member != "good")
    assert {each.step.member for each in plan(now, costs(), EXPECTED)} == {"cheap", "slow"}


def test_a_swap_pass_waits_for_its_first_and_is_worth_its_share() -> None:
    now = situation(1e6)
    swap = Step("good", 0, "swap")
    loads, masks = dict(now.loads), dict(now.open)
    loads[swap], masks[swap] = loads[Step("good", 0)], np.ones(ROWS, dtype=bool)
    expected = ExpectedGain(RUNGS, EXPECTED.folds, {"good": {"swap": 0.08}}, CLASSES)
    planned = plan(replace(now, loads=loads, open=masks), costs(), expected)
    places = {each.step: place for place, each in enumerate(planned)}
    assert places[swap] > places[Step("good", 0)]
    assert planned[places[swap]].gain > LEFTOVER


@given(st.integers(1, 12), st.integers(1, 12))
def test_averaging_pays_less_and_less(count: int, folds: int) -> None:
    shares = [averaged_share(n, folds) for n in range(folds + 1)]
    assert shares[0] == 0.0
    assert shares[-1] == (1.0 if folds > 1 else 0.0)
    assert shares == sorted(shares)
    assert averaged_share(count, folds) <= 1.0


def test_an_average_of_fold_models_brings_its_share_in_one_pass() -> None:
    members = {name: each | ({"averaged": 0.8} if name == "good" else {}) for name, each in MEMBERS.items()}
    expected, rung = expected_gain(RUNGS, members, CLASSES), RUNGS[2]
    one, all_of_them = (expected.loss({"good": count}) for count in (1, 2))
    assert one == pytest.approx(rung.loss - 0.8 * rung.averaging)
    assert all_of_them == pytest.approx(rung.loss - rung.averaging)
    assert expected.loss({"cheap": 1}) == RUNGS[1].loss


@pytest.fixture
def command(package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `python -m pipeline.planning.forecast` prints of the package, with options in place of the usual ones."""

    def printed(**options: str | None) -> str:
        asked = {"package": str(package), "rows": "2000", "budget": "600", "hardware": "cpu"} | options
        given = [each for name, value in asked.items() if value for each in (f"--{name}", value)]
        monkeypatch.setattr("sys.argv", ["forecast", *given])
        forecast.main()
        return capsys.readouterr().out

    return printed


def test_the_command_prints_what_would_happen(package: Path, command: Callable[..., str]) -> None:
    done = command(budget="32400", hardware="t4x2")
    assert "2000 rows within 32400 s would be:" in done
    for name, member in manifest_of(package)["members"].items():
        assert all(f"{name} fold {fold} " in done for fold in member["folds"])
    assert "everything would take" in done
    assert command(budget="600", hardware="t4x2") == command(budget=None, hardware=None)  # the package's own
    assert len(command(budget="10", hardware="t4x2").splitlines()) < len(done.splitlines())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"hardware": "abacus"},
            "--hardware: expected t4, l4, h100, rtx_pro_6000, gpu, cpu, or several like t4x2, found abacus",
        ),
        ({"rows": "0"}, "--rows and --budget: expected positive numbers"),
        ({"budget": "-1"}, "--rows and --budget: expected positive numbers"),
        ({"timings": "nowhere.json"}, "nowhere.json: expected a rehearsal.json with timings, found none"),
        ({"package": "nowhere"}, "nowhere: expected a package (a folder with MANIFEST.json), found none"),
    ],
)
def test_what_the_command_refuses(command: Callable[..., str], options: dict[str, str], says: str) -> None:
    with pytest.raises(PodiumError, match=re.escape(says)) as caught:
        command(**options)
    assert "\n" not in str(caught.value)


def test_a_refusal_of_the_command_is_one_line_with_exit_code_2(tmp_path: Path) -> None:
    done = run_module("pipeline.planning.forecast", "--rows", "1", "--budget", "0", cwd=tmp_path)
    assert error_line(done) == "error: --rows and --budget: expected positive numbers"


def test_a_member_without_known_gains_is_planned_too(package: Path, command: Callable[..., str]) -> None:
    manifest = manifest_of(package)
    del manifest["members"]["shape"]["gains"]
    write_manifest(package, manifest)
    assert "shape fold 1" in command(rows="10")


def test_a_cpu_has_no_time_for_networks_but_does_not_take_theirs() -> None:
    """Two devices of 60 s each: what may run on one of them alone is not planned into the other's time."""
    now = situation(60.0)
    now = replace(
        now, seconds={"cpu": 60.0, "other": 60.0}, may=lambda member, device: device == "cpu" or member == "cheap"
    )
    found = Costs(
        MEMBERS,
        {"cpu": "cpu", "other": "cpu"},
        {n: {"cpu": {"load": 0.0, "a": 0.0, "b": 1.0, "c": 0.0}} for n in COSTS},
    )
    planned = plan(now, found, EXPECTED)
    assert {"cheap0", "cheap1", "good0"} <= set(steps(planned))
    assert sum(each.upper for each in planned if each.step.member != "cheap" and each.rows is None) <= 60.0 + 1e-9


def test_without_any_figures_everything_that_fits_is_run() -> None:
    """A ladder that could not be read: the kernel goes on with the equal mean of whatever runs."""
    for loss in (0.0, np.inf):
        expected = ExpectedGain((Rung("prior", (), None, loss=loss),), {name: 2 for name in COSTS}, {}, CLASSES)
        assert len(plan(situation(1e6), costs(), expected)) == 6
        assert {each.step.member for each in plan(situation(60.0), costs(), expected)} == {"cheap", "good"}
