"""The rival of the deadline benchmark: the same seconds, for the rows of which the cheap members are least sure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from support import preference_rows, probabilities

from benchmarks.kernel import replay
from benchmarks.kernel.replay import Case, Draw, Spent, cheap_losses, full_seconds, most_uncertain
from benchmarks.kernel.simulated import part
from pipeline.competitions.family import log_losses
from pipeline.competitions.task import Competition
from pipeline.ensemble.build_ladder import build_ladder
from pipeline.ensemble.table import Table
from pipeline.planning.steps import Step

DRAW = Draw(3, {"words": "words", "shape": "shape", "small": "encoder", "large": "decoder"})
MEMBERS = {"words": 0.3, "shape": 0.4, "small": 1.0, "large": 2.5}
CHEAP = ("words", "shape")


@pytest.fixture(scope="module")
def case(lmsys: Competition) -> Case:
    rows = preference_rows(400, seed=2)
    labels = rows["label"].to_numpy()
    said = {name: probabilities(labels, 3, sharp, seed) for seed, (name, sharp) in enumerate(MEMBERS.items())}
    table = Table(rows.with_columns(fold=pl.lit(0)), labels, said)
    inside, outside = (part(table, np.arange(400) % 2 == each) for each in (0, 1))
    ladder = build_ladder(inside, list(MEMBERS), "logistic", lmsys, 1, 0, list(MEMBERS)[::-1])
    predictions = {Step(name, 0): outside.probabilities[name] for name in MEMBERS}
    return Case("small", outside.rows, outside.labels, predictions, ladder)


def spent(case: Case, seconds: float) -> Spent:
    return Spent(seconds, {step: each for step, each in case.predictions.items() if step.member in CHEAP})


def test_without_seconds_it_has_the_cheap_members_and_with_enough_of_them_the_full_set(case: Case) -> None:
    cheap = cheap_losses(case, DRAW)
    full = case.ladder.predict({step.member: each for step, each in case.predictions.items()}, case.rows)[0]
    assert np.array_equal(most_uncertain(case, DRAW, spent(case, 0.0), "both, one fold model"), cheap)
    np.testing.assert_allclose(
        most_uncertain(case, DRAW, spent(case, 1e9), "both, one fold model"), log_losses(case.labels, full), atol=1e-9
    )
    alone = most_uncertain(case, DRAW, spent(case, 1e9), "encoder, one fold model")
    assert not np.array_equal(alone, cheap) and full.shape == (len(cheap), 3)


def test_the_rows_that_are_asked_are_the_most_uncertain_and_more_seconds_ask_more(case: Case) -> None:
    cheap = cheap_losses(case, DRAW)
    family = case.competition.family
    before = case.ladder.predict({name: case.predictions[Step(name, 0)] for name in CHEAP}, case.rows)[0]
    order, counts = np.argsort(-family.uncertainty(before), kind="stable"), []
    for seconds in np.linspace(0.0, 2 * full_seconds(case, DRAW), 12):
        asked = most_uncertain(case, DRAW, spent(case, float(seconds)), "decoder, one fold model") != cheap
        counts.append(int(asked.sum()))
        assert set(np.flatnonzero(asked)) == set(order[: counts[-1]])
    assert counts == sorted(counts) and counts[0] == 0 and max(counts) > 0 and len(set(counts)) > 2


def test_a_planners_kernel_tells_what_its_costly_members_took_and_what_the_cheap_ones_said(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "written", lambda *_: True)
    found = [replay.replay(case, DRAW, share * full_seconds(case, DRAW)) for share in (0.02, 1.5)]
    (none, little), (_, much) = found
    assert little.seconds == 0 < much.seconds <= 2 * none.seconds + 4 * full_seconds(case, DRAW)
    assert {step.member for step in much.cheap} == set(CHEAP)
    # A broken member is asked by neither: the rival has the cheap answers alone then.
    init = replay.Machine.__init__

    def breaks(self: replay.Machine, *given: object) -> None:
        init(self, *given)  # type: ignore[arg-type]
        self.broken = {"small", "large"}

    monkeypatch.setattr(replay.Machine, "__init__", breaks)
    losses = most_uncertain(case, DRAW, replace(much, seconds=1e9), "both, one fold model")
    np.testing.assert_allclose(losses, cheap_losses(case, DRAW), atol=1e-12)
