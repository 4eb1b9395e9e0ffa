"""A soup of a run's moments: the best on the inner slice, never worse there than the best alone, in any killed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import CPU, furthest

from pipeline.settings.techniques import Soup
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loop import TrainingRun, fit
from pipeline.training.state import Record
from pipeline.training.techniques.soup import Moments

quick = settings(max_examples=60, deadline=None)
points = st.lists(st.floats(-3, 3), min_size=2, max_size=8)


def simmering(places: list[float], most: int) -> tuple[Moments, dict[str, torch.Tensor], Any]:
    """Moments of one number that shall be near 0: its loss is its square."""
    weights, moments = {"w": torch.zeros(1)}, Moments(Soup(moments=most))

    def evaluate() -> float:
        return float(weights["w"] ** 2)

    for step, place in enumerate(places, start=1):
        weights["w"].fill_(place)
        moments.take(evaluate(), step, weights)
    return moments, weights, evaluate


@given(points, st.integers(2, 6))
@quick
def test_the_best_moments_are_kept_and_later_weights_do_not_touch_them(places: list[float], most: int) -> None:
    moments, _, _ = simmering(places, most)
    wanted = sorted((float(torch.tensor(place) ** 2), step) for step, place in enumerate(places, start=1))[:most]
    assert [each[:2] for each in moments.kept] == wanted
    assert all(float(each.weights["w"]) == pytest.approx(places[each.step - 1]) for each in moments.kept)


@given(points)
@quick
def test_the_soup_is_a_mean_that_is_no_worse_than_its_best_moment(places: list[float]) -> None:
    moments, weights, evaluate = simmering(places, len(places))
    steps = moments.cook(weights, evaluate)
    assert steps[0] == moments.kept[0].step and len(steps) == len(set(steps))
    mean = sum(places[step - 1] for step in steps) / len(steps)
    assert float(weights["w"]) == pytest.approx(mean, abs=1e-5)
    assert evaluate() <= moments.kept[0].score + 1e-6


def test_what_lies_around_joins_and_what_spoils_stays_out() -> None:
    moments, weights, evaluate = simmering([1.0, -1.1, 5.0], 3)
    assert moments.cook(weights, evaluate) == [1, 2]
    assert float(weights["w"]) == pytest.approx(-0.05, abs=1e-5)


def run(learner: Any, folder: Path) -> Record:
    judge = learner.objective

    def evaluate() -> float:
        return judge.score(learner.network)

    return fit(
        TrainingRun(
            learner.network, judge, learner.settings, CPU, Checkpoint(folder), "x", evaluate=evaluate
        )
    ).record  # fmt: skip


class Killed(BaseException):
    """As if the process had been killed."""


ASKED = {"epochs": 4, "inner": 0.2, "evaluations_per_epoch": 2, "dropout": 0.1, "soup": {"moments": 3}}


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_run_ends_with_its_soup_also_after_a_kill(
    kind: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    cooked, cook = [], Moments.cook

    def seen(self: Moments, *given: Any) -> list[int]:
        cooked.append([each[:2] for each in self.kept])
        return cook(self, *given)

    monkeypatch.setattr(Moments, "cook", seen)
    plain, alone = made(kind, **ASKED | {"soup": None}), made(kind, **ASKED)
    usual, record = run(plain, tmp_path / "plain"), run(alone, tmp_path / "alone")
    assert usual.losses == record.losses and usual.scores == record.scores and usual.best == record.best
    assert usual.soup == [] and record.soup[0] == record.best and len(record.soup) <= 3
    best = min(score for _, score in record.scores)
    assert alone.objective.score(alone.network) <= best + 1e-6

    own, count = Checkpoint.save, iter(range(99))

    def save(self: Checkpoint, *given: Any) -> None:
        own(self, *given)
        if next(count) == 5:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(Killed):
        run(made(kind, **ASKED), tmp_path / "again")
    again = made(kind, **ASKED)
    its = run(again, tmp_path / "again")
    assert (its.losses, its.soup, [tuple(each) for each in its.scores]) == (record.losses, record.soup, record.scores)
    assert len(cooked[0]) == 3 and cooked[0] == cooked[1]
    weights = ({name: each.detach() for name, each in one.network.named_parameters()} for one in (alone, again))
    assert furthest(*weights) == 0.0


def test_the_moments_are_those_of_the_average_where_there_is_one(made: Any, tmp_path: Path) -> None:
    learner = made(**ASKED | {"ema": 0.2})
    record = run(learner, tmp_path)
    assert len(record.scores) >= 4 and record.soup
    if len(record.soup) == 1:
        assert learner.objective.score(learner.network) == pytest.approx(min(s for _, s in record.scores), abs=1e-6)
