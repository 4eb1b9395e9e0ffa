"""The ladder: which sets get a stacker, who answers a row, what a rung is worth, and which rows gain from it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import CLASSES, geometric_mean, preference_rows, probabilities

from pipeline.competitions.family import log_losses
from pipeline.competitions.task import Competition
from pipeline.ensemble.build_ladder import (
    FEW,
    build_ladder,
    calibrate,
    cheap_first,
    costliest,
    rung_sets,
    with_averaging,
)
from pipeline.ensemble.calibration import Calibration
from pipeline.ensemble.ladder import LAST_RESORT, PRIOR, Ladder, Rung, answering_order
from pipeline.ensemble.row_priority import fit_priority, row_gains
from pipeline.ensemble.stackers import equal_mean
from pipeline.ensemble.table import Holdout, Table
from pipeline.kinds import KINDS

NAMES = ["words", "shape", "net", "judge"]


@pytest.fixture(scope="module")
def table() -> Table:
    rows = preference_rows(400)
    labels = rows["label"].to_numpy().astype(np.int64)
    sharpness = dict(zip(NAMES, (0.5, 0.3, 0.8, 1.0), strict=True))
    spoken = {name: probabilities(labels, 3, sharp, place) for place, (name, sharp) in enumerate(sharpness.items())}
    frame = rows.drop("label").with_columns(pl.Series("fold", np.arange(400) // 2 % 4))
    return Table(frame, labels, spoken)


@pytest.fixture(scope="module")
def ladder(table: Table, lmsys: Competition) -> Ladder:
    return build_ladder(table, NAMES, "logistic", lmsys, 1, 0, ["judge", "net"])


@given(st.integers(1, 9), st.integers(0, 3), st.randoms())
def test_the_sets_are_prefixes_singles_and_what_is_left_without_one(count: int, dear: int, random) -> None:  # type: ignore[no-untyped-def]
    members = [f"m{number}" for number in range(count)]
    costly = random.sample(members, min(dear, count))
    sets = rung_sets(members, costly)
    assert len(set(sets)) == len(sets)
    assert sets[-1] == tuple(members)
    assert [len(each) for each in sets] == sorted(len(each) for each in sets)
    found = set(sets)
    assert all((name,) in found for name in members)
    assert all(tuple(members[:length]) in found for length in range(1, count + 1))
    for gone in members if 1 < count <= FEW else ():
        assert tuple(name for name in members if name != gone) in found
    for gone in costly[:2]:
        for length in range(1, count + 1):
            rest = tuple(name for name in members[:length] if name != gone)
            assert not rest or rest in found
    assert all(each == tuple(name for name in members if name in each) for each in sets)  # in the ladder's order


def test_cheap_kinds_come_first_and_external_members_last() -> None:
    names = {"llama": "decoder", "friend": "external", "words": "tabular", "bert": "encoder", "shape": "tabular"}
    kinds = {member: KINDS[kind] for member, kind in names.items()}
    assert cheap_first(kinds) == ["words", "shape", "bert", "llama", "friend"]
    assert costliest(kinds, ["words", "bert", "llama", "friend"]) == ["llama", "bert"]


def test_every_set_of_members_has_an_answer(ladder: Ladder, table: Table) -> None:
    for size in range(len(NAMES) + 1):
        for chosen in combinations(NAMES, size):
            found, by = ladder.predict({name: table.probabilities[name] for name in chosen}, table.rows)
            assert np.isfinite(found).all()
            assert np.abs(found.sum(axis=1) - 1).max() < 1e-9
            # The full set answers, else the rung of which the least loss is expected; the prior where nobody spoke.
            could = [rung for rung in ladder.rungs[1:] if set(rung.members) <= set(chosen)]
            best = min(could, key=lambda rung: (len(rung.members) < len(NAMES), rung.loss)).name if chosen else PRIOR
            assert set(by) == {best}
            if chosen:
                assert (
                    log_losses(table.labels, found).mean()
                    < log_losses(table.labels, ladder.predict({}, table.rows)[0]).mean()
                )


def test_a_row_has_the_answer_of_exactly_the_members_that_spoke_for_it(ladder: Ladder, table: Table) -> None:
    rng = np.random.default_rng(1)
    available = {name: each.copy() for name, each in table.probabilities.items()}
    for each in available.values():
        each[rng.random(len(each)) < 0.3] = np.nan
    mixed, by = ladder.predict(available, table.rows)
    for row in range(40):
        have = {name: each[row : row + 1] for name, each in available.items() if np.isfinite(each[row]).all()}
        alone, name = ladder.predict(have, table.rows[row : row + 1])
        assert np.allclose(mixed[row], alone[0], atol=1e-12)
        assert by[row] == name[0]


def test_the_last_resort_is_the_mean_of_calibrated_members(lmsys: Competition, table: Table) -> None:
    names = ["a", "b", "c"]
    single = Calibration(temperature=2.0)
    rungs = (
        Rung(PRIOR, (), None, loss=1.1),
        *(Rung(name, (name,), equal_mean(1, 3), single, loss=1.0) for name in names),
        Rung("full", (*names, "d"), equal_mean(4, 3), loss=0.9),
    )
    ladder = Ladder(rungs, (0.3, 0.3, 0.4), lmsys)
    spoken = dict(zip(names, list(table.probabilities.values())[:3], strict=True))
    found, by = ladder.predict(spoken, table.rows)
    assert set(by) == {LAST_RESORT}
    assert np.allclose(found, geometric_mean([single.apply(each, CLASSES) for each in spoken.values()]), atol=1e-12)
    # Two of two are no last resort: half of the members that spoke make up a rung.
    found, by = ladder.predict({name: spoken[name] for name in names[:2]}, table.rows)
    assert set(by) == {"a"}


def test_the_full_set_answers_where_it_can_though_another_rung_looks_better(ladder: Ladder) -> None:
    better = replace(ladder.rungs[1], loss=0.0)
    order = answering_order((ladder.rungs[0], better, *ladder.rungs[2:]))
    assert order[0].members == tuple(NAMES)
    assert order[1] is better
    assert order[-1].name == PRIOR


def test_losses_are_those_of_rows_that_a_rung_was_not_fitted_on(ladder: Ladder, table: Table) -> None:
    losses = {rung.members: rung.loss for rung in ladder.rungs}
    assert losses[()] == pytest.approx(log_losses(table.labels, np.tile(ladder.prior, (400, 1))).mean())
    assert losses[tuple(NAMES)] < losses[("judge",)] < losses[("words",)] < losses[()]
    # A stacker of noise promises no gain.
    rng = np.random.default_rng(0)
    noise = Table(table.rows, table.labels, {name: rng.dirichlet(np.ones(3), size=400) for name in NAMES})
    built = build_ladder(noise, NAMES, "logistic", ladder.competition, 1, 0)
    assert built.rungs[-1].loss > built.rungs[0].loss - 0.01


def test_averaging_counts_only_where_it_gains(ladder: Ladder, table: Table) -> None:
    rung, labels = ladder.rungs[1], table.labels
    noisy = [probabilities(labels, 3, 0.6, seed) for seed in range(4)]
    mean = geometric_mean(noisy)
    gained = with_averaging(rung, labels, noisy, mean, CLASSES).averaging
    assert gained == pytest.approx(
        np.mean([log_losses(labels, each).mean() for each in noisy]) - log_losses(labels, mean).mean()
    )
    assert with_averaging(rung, labels, [mean], noisy[0], CLASSES).averaging == 0.0


def held_out(table: Table, prompts: int, labels: np.ndarray) -> Holdout:
    """A holdout of some rows of `table`, with so many first prompts, that three fold models have answered."""
    rows = table.rows.head(len(labels)).with_columns(
        pl.Series("prompt", [[f"Question {row % prompts}?"] for row in range(len(labels))])
    )
    spoken = [
        {name: probabilities(labels, 3, 0.8, 10 * fold + place) for place, name in enumerate(NAMES)}
        for fold in range(3)
    ]
    averages = {name: geometric_mean([each[name] for each in spoken]) for name in NAMES}
    return Holdout(Table(rows, labels, averages), {fold: Table(rows, labels, each) for fold, each in enumerate(spoken)})


@pytest.mark.parametrize(
    ("prompts", "labels"), [(1, np.arange(20) % 3), (1, np.zeros(1, dtype=int)), (3, np.arange(3))]
)
def test_a_holdout_that_cannot_be_halved_gives_no_shift(
    ladder: Ladder, table: Table, prompts: int, labels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    holdout = held_out(table, prompts, labels)
    found, answers = calibrate(ladder, holdout, 0)
    assert capsys.readouterr().out.startswith(
        f"warning: the holdout has {len(labels)} rows in {prompts} groups, too few for two halves"
    )
    assert {rung.calibration.shift for rung in found.rungs[1:]} == {1.0}
    assert answers is not None
    assert len(answers.single) == 3
    full = replace(ladder, rungs=ladder.rungs[-1:])
    assert np.array_equal(answers.shifted, full.predict(holdout.average.probabilities, holdout.average.rows)[0])


def test_each_half_of_the_holdout_is_shifted_by_the_other(
    ladder: Ladder, table: Table, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.arange(40) % 3
    holdout = held_out(table, 2, labels)
    found, answers = calibrate(ladder, holdout, 0)
    assert "warning" not in capsys.readouterr().out
    assert found.rungs[-1].calibration.shift != 1.0
    plain = replace(ladder, rungs=ladder.rungs[-1:]).predict(holdout.average.probabilities, holdout.average.rows)[0]
    assert answers is not None
    assert not np.allclose(answers.shifted, plain)


@given(st.floats(0.0, 1.0), st.floats(0.5, 2.0))
def test_the_shift_goes_from_one_fold_model_to_all(share: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    each = rng.dirichlet(np.ones(3), size=5)
    calibration = Calibration(temperature=1.2, shift=shift)
    assert np.allclose(calibration.apply(each, CLASSES, 0.0), Calibration(temperature=1.2).apply(each, CLASSES))
    assert np.allclose(calibration.apply(each, CLASSES, 1.0), calibration.apply(each, CLASSES))
    between = calibration.apply(each, CLASSES, np.array([0.0, share, 1.0, share, share]))
    assert np.allclose(between[0], calibration.apply(each, CLASSES, 0.0)[0])
    assert np.allclose(between[2], calibration.apply(each, CLASSES)[2])
    assert np.allclose(between[1], Calibration(temperature=1.2, shift=shift**share).apply(each, CLASSES)[1])


def test_rows_that_gain_are_found_by_what_is_known_before() -> None:
    rng = np.random.default_rng(0)
    present = rng.dirichlet(np.ones(3), size=2000)
    unsure = CLASSES.uncertainty(present)
    # The better answer differs more where the present one is unsure.
    better = present * np.exp(rng.normal(size=present.shape) * unsure[:, None])
    better /= better.sum(axis=1, keepdims=True)
    characters = rng.integers(10, 5000, size=2000).astype(float)
    gains = row_gains(
        fit_priority(better[:1000], present[:1000], characters[:1000], CLASSES), unsure[1000:], characters[1000:]
    )
    real = CLASSES.divergence(better, present)[1000:]
    best = np.argsort(-gains)[:250]
    assert real[best].mean() > 1.3 * real.mean()
    assert gains.mean() == pytest.approx(real.mean(), rel=0.2)
    assert (gains > 0).all()
    assert (row_gains((), unsure, characters) == 1.0).all()


@given(st.integers(0, 2**32 - 1))
def test_a_divergence_is_never_negative(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.dirichlet(np.ones(3), size=(2, 6))
    assert (CLASSES.divergence(first, second) >= -1e-12).all()
    assert np.allclose(CLASSES.divergence(first, first), 0.0)
