"""Results: averages over fold models, rows that some have not answered yet, the shift that goes with their number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import CLASSES, geometric_mean, preference_rows

from pipeline.competitions.task import Competition
from pipeline.ensemble.calibration import Calibration
from pipeline.ensemble.ladder import LAST_RESORT, PRIOR, Ladder, Rung
from pipeline.ensemble.stackers import equal_mean
from pipeline.kernel.results import Results, average_answered
from pipeline.planning.steps import Step

ROWS = 12
MEMBERS = {"a": {"folds": [0, 1]}, "b": {"folds": [0, 1]}}


@pytest.fixture
def results(lmsys: Competition) -> Results:
    rungs = (
        Rung(PRIOR, (), None, loss=1.1),
        Rung("a", ("a",), equal_mean(1, 3), Calibration(shift=1.5), loss=1.0),
        Rung("a+b", ("a", "b"), equal_mean(2, 3), Calibration(shift=1.5), loss=0.9),
    )
    ladder = Ladder(rungs, (0.2, 0.3, 0.5), lmsys)
    return Results(preference_rows(ROWS).drop("label"), lmsys, MEMBERS, ladder)


def spoken(seed: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), size=rows)


def test_nothing_yet(results: Results) -> None:
    found, by = results.means()
    assert np.isnan(found).all()
    assert set(by) == {PRIOR}


def test_rows_climb_as_results_come_in(results: Results) -> None:
    everything, half = np.arange(ROWS), np.arange(0, ROWS, 2)
    parts = {step: spoken(place) for place, step in enumerate([Step("a", 0), Step("a", 1), Step("b", 0)])}
    results.add(Step("a", 0), everything, parts[Step("a", 0)])
    found, by = results.means()
    assert set(by) == {"a"}
    assert np.allclose(found, parts[Step("a", 0)])  # one of two fold models: no shift yet
    results.add(Step("a", 1), half, parts[Step("a", 1)][half])
    found, by = results.means()
    both = geometric_mean([parts[Step("a", 0)], parts[Step("a", 1)]])
    assert np.allclose(found[half], Calibration(shift=1.5).apply(both, CLASSES)[half])
    assert np.allclose(found[1::2], parts[Step("a", 0)][1::2])
    results.add(Step("b", 0), half[:3], parts[Step("b", 0)][half[:3]])
    found, by = results.means()
    assert [by[row] for row in (0, 1, 2, 4, 6)] == ["a+b", "a", "a+b", "a+b", "a"]
    mix = geometric_mean([both[:1], parts[Step("b", 0)][:1]])
    assert np.allclose(
        found[0], Calibration(shift=1.5).apply(mix, CLASSES, 0.5)[0]
    )  # a has all of its models, b one of two


def test_an_average_of_fold_models_stands_for_several_where_it_has_answered(
    results: Results, lmsys: Competition
) -> None:
    """Its share of the shift comes with its own rows; those that only a fold model has answered get none."""
    members = {"a": {"kind": "tabular", "folds": [3, 0, 1], "averaged": 0.75}}
    found = Results(results.rows, lmsys, members, results.ladder)
    half, rest = np.arange(0, ROWS, 2), np.arange(1, ROWS, 2)
    found.add(Step("a", 3), half, spoken(0)[half])
    found.add(Step("a", 0), rest, spoken(1)[rest])
    means, _ = found.means()
    assert np.allclose(means[half], Calibration(shift=1.5).apply(spoken(0), CLASSES, 0.75)[half])
    assert np.allclose(means[rest], spoken(1)[rest])
    for fold in (0, 1):
        found.add(Step("a", fold), half, spoken(0)[half])
    assert np.allclose(found.means()[0][half], Calibration(shift=1.5).apply(spoken(0), CLASSES)[half])


def test_the_order_of_arrival_is_of_no_consequence(results: Results, lmsys: Competition) -> None:
    other = Results(results.rows, lmsys, MEMBERS, results.ladder)
    steps = [Step(name, fold) for name in "ab" for fold in (0, 1)]
    chunks = [
        (step, rows, spoken(place)[rows])
        for place, step in enumerate(steps)
        for rows in np.array_split(np.arange(ROWS), 3)
    ]
    for step, rows, values in chunks:
        results.add(step, rows, values)
        results.means()
    for place in np.random.default_rng(0).permutation(len(chunks)):
        other.add(*chunks[place])
    assert np.array_equal(results.means()[0], other.means()[0])


def test_without_a_ladder_it_is_the_mean_of_what_has_run(results: Results, lmsys: Competition) -> None:
    results.ladder = None
    results.add(Step("a", 0), np.arange(4), spoken(1, 4))
    results.add(Step("b", 0), np.arange(2), spoken(2, 2))
    found, by = results.means()
    assert by == [LAST_RESORT] * 4 + [PRIOR] * (ROWS - 4)
    assert np.allclose(found[:2], geometric_mean([spoken(1, 4)[:2], spoken(2, 2)]))
    assert np.isnan(found[4:]).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6))
def test_the_average_passes_over_what_is_missing(seed: int, models: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    parts = list(rng.dirichlet(np.ones(3), size=(models, rows)))
    assert np.allclose(average_answered(parts, CLASSES), geometric_mean(parts), atol=1e-12)
    missing = rng.random((models, rows)) < 0.4
    for part, gone in zip(parts, missing, strict=True):
        part[gone, rng.integers(3)] = np.nan
    found = average_answered(parts, CLASSES)
    for row in range(rows):
        given_ = [part[row : row + 1] for part, gone in zip(parts, missing, strict=True) if not gone[row]]
        if given_:
            assert np.allclose(found[row], geometric_mean(given_)[0], atol=1e-12)
        else:
            assert np.isnan(found[row]).all()
