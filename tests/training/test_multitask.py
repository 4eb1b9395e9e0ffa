"""The plan of a run with auxiliary tasks: how many steps of each, where they stand, in which order the rows come."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.competitions.family import Categorical
from pipeline.data.text import Encoded
from pipeline.settings.auxiliary import Auxiliary, AuxiliaryTask
from pipeline.training.objectives.multitask import Interleaved, MultiTask
from pipeline.training.objectives.supervised import Supervised


def rows(count: int, rows_per_step: int = 4) -> Supervised:
    ids = [np.zeros(1 + number % 5, dtype=np.int32) for number in range(count)]
    encoded = Encoded(ids, 1, {}, np.zeros(count, dtype=bool))
    return Supervised(encoded, np.zeros(count, dtype=np.int64), Categorical(2), 0, "cpu", rows_per_step, 64, 0.0, 0)


def plan_of(
    sizes: dict[str, int], scored: int = 40, epochs: int = 3, order: int = 0, weights: Any = None, **settings: Any
) -> Interleaved:
    given = {name: AuxiliaryTask(path="x", competition="x", weight=(weights or {}).get(name, 1.0)) for name in sizes}
    asked = Auxiliary(tasks=given, **settings)
    tasks = {name: rows(count) for name, count in sizes.items()}
    return Interleaved(rows(scored), tasks, asked, epochs).planned(order, epochs)


def counts(plan: Interleaved) -> list[Counter[str]]:
    """Steps of each auxiliary task in each epoch."""
    each, steps = plan.scored.steps, plan.between
    return [Counter(n for names in steps[e * each : (e + 1) * each] for n in names) for e in range(plan.epochs)]


def test_round_robin_gives_each_task_one_step_for_each_scored_one() -> None:
    plan = plan_of({"a": 8, "b": 400})
    assert all(names == ["a", "b"] for names in plan.between)


def test_proportional_goes_through_each_set_once_an_epoch() -> None:
    assert counts(plan_of({"a": 8, "b": 400}, sampling="proportional")) == [Counter(a=2, b=100)] * 3
    # Mixed as evenly as can be, not in blocks.
    names = plan_of({"a": 80, "b": 160}, sampling="proportional").between[0]
    assert names == ["b", "a", "b", "b", "a", "b"]


def test_annealed_begins_proportional_and_nears_equal_numbers() -> None:
    found = counts(plan_of({"a": 400}, sampling="annealed"))
    wanted = [10 * 10**power for power in (1.0, 0.6, 0.2)]
    assert [each["a"] for each in found] == pytest.approx(wanted, abs=1)
    assert counts(plan_of({"a": 400}, epochs=1, sampling="annealed")) == [Counter(a=100)]


@pytest.mark.parametrize("until", [0.1, 0.5, 0.8, 1.0])
def test_after_its_share_of_the_steps_the_scored_task_is_alone(until: float) -> None:
    plan = plan_of({"a": 8}, until=until)
    assert [len(names) for names in plan.between] == [1] * round(30 * until) + [0] * (30 - round(30 * until))
    assert plan.steps_of(None)[-1] == 29 + round(30 * until)


@given(
    scored=st.integers(1, 60), a=st.integers(1, 90), b=st.integers(1, 90), epochs=st.integers(1, 4),
    sampling=st.sampled_from(["round_robin", "proportional", "annealed"]), until=st.floats(0.1, 1.0),
)  # fmt: skip
def test_every_step_is_of_one_task_and_the_scored_ones_are_as_without(
    scored: int, a: int, b: int, epochs: int, sampling: Any, until: float
) -> None:
    plan = plan_of({"a": a, "b": b}, scored, epochs, sampling=sampling, until=until)
    steps = [np.concatenate(step) for number in range(epochs) for step in plan.epoch(number)]
    ends = [0, scored, scored + a, scored + a + b]
    for place, name in enumerate((None, "a", "b")):
        own = plan.steps_of(name)
        inside = [number for number, each in enumerate(steps) if ends[place] <= each[0] < ends[place + 1]]
        assert own == inside
        assert all((each >= ends[place]).all() and (each < ends[place + 1]).all() for each in (steps[n] for n in own))
    alone = [np.concatenate(step) for number in range(epochs) for step in plan.scored.epoch(number)]
    together = [steps[number] for number in plan.steps_of(None)]
    assert len(alone) == len(together) and all(map(np.array_equal, alone, together))
    # A set begins again only when all of it was seen.
    seen = Counter(row for number in plan.steps_of("a") for row in steps[number].tolist())
    if seen:
        assert max(seen.values()) - min(seen[scored + row] for row in range(a)) <= 1


def test_the_order_comes_from_the_seed_and_the_tasks_have_orders_of_their_own() -> None:
    def flat(plan: Interleaved) -> list[list[int]]:
        return [np.concatenate(step).tolist() for step in plan.epoch(1)]

    one = plan_of({"a": 40, "b": 40})
    assert flat(one) == flat(plan_of({"a": 40, "b": 40})) != flat(plan_of({"a": 40, "b": 40}, order=1))
    first = {name: [row for n in one.epoch(0) for row in np.concatenate(n) - base if 0 <= row < 40]
             for name, base in (("scored", 0), ("a", 40), ("b", 80))}  # fmt: skip
    assert len({tuple(each) for each in first.values()}) == 3
    assert all(sorted(each) == list(range(40)) for each in first.values())


class Constant(nn.Module):
    """The same logits for every row."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.logits.expand(len(input_ids), -1)


def test_a_batch_meets_the_head_of_its_task_and_counts_by_its_weight() -> None:
    plan = plan_of({"a": 8, "b": 8}, weights={"a": 1.0, "b": 0.25})
    network = MultiTask(Constant(0.0, 0.0), {"a": Constant(0.0, 1.0), "b": Constant(0.0, 2.0)})
    wanted = {None: (0, 0.0, 1.0), "a": (40, 1.0, 1.0), "b": (48, 2.0, 0.25)}
    for task, (first, logit, weight) in wanted.items():
        batch = plan.batch(np.arange(first, first + 4), 0)
        loss = plan.loss(network, batch)
        assert batch.task == task and (loss.logits is None) == (task is not None)
        assert float(loss.plain.detach()) == pytest.approx(4 * np.log(1 + np.exp(logit)), rel=1e-5)
        assert float(loss.minimised.detach()) == pytest.approx(weight * float(loss.plain.detach()))
    for task, (part, its) in zip(wanted, plan.parts(network), strict=True):
        assert float(part.logits[1].detach()) == wanted[task][1] and len(its.labels) == (8 if task else 40)


def test_a_run_of_more_epochs_stretches_the_plan() -> None:
    plan = plan_of({"a": 40}, epochs=2, until=0.5)
    assert len(plan.planned(0, 4).between) == 40
    assert [len(names) for names in plan.planned(0, 4).between] == [1] * 20 + [0] * 20
