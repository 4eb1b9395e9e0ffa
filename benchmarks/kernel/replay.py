"""One kernel in simulated time: real predictions of real rows, drawn speeds and accidents, the real schedule.

benchmarks/kernel/simulated.py runs thousands of them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.decision import PLAIN
from pipeline.competitions.family import log_losses
from pipeline.competitions.submission import as_submitted
from pipeline.competitions.task import Competition
from pipeline.data.rows import field_characters
from pipeline.ensemble.ladder import Ladder
from pipeline.kernel.results import Results
from pipeline.kernel.submission import SubmissionForm, validate_submission, write_submission
from pipeline.kernel.supervisor import WRITE_RESERVE
from pipeline.planning.budget import margin
from pipeline.planning.cost import Costs, nominal
from pipeline.planning.gain import expected_gain
from pipeline.planning.plan import who_may
from pipeline.planning.schedule import Schedule, StepChunk
from pipeline.planning.simulate import Outcome, simulate
from pipeline.planning.steps import AROUND, Step, loads_of

DEVICES = {"cuda:0": "t4", "cuda:1": "t4", "cpu": "cpu"}
LARGE = {
    "layers": 24,
    "hidden": 1024,
    "siamese": False,
    "questions": 1,
    "around": AROUND,
    "long_tokens": None,
    "characters_per_token": 4.2,
}
PROFILES: dict[str, dict[str, Any]] = {
    "words": {"kind": "tabular"},
    "shape": {"kind": "tabular"},
    "encoder": {
        "kind": "encoder",
        "work": LARGE | {"parameters": 303_000_000, "bytes": 870_000_000, "max_tokens": 1024},
    },
    "decoder": {
        "kind": "decoder",
        "work": LARGE
        | {"layers": 32, "hidden": 4096, "parameters": 6_980_000_000, "bytes": 5_700_000_000, "max_tokens": 2048},
    },
}
"""What the members cost: two cheap ones, DeBERTa-v3-large, Llama-3-8B in four bits."""


@dataclass(frozen=True)
class Case:
    """Rows to answer, with what every fold model says of them, and the ladder that was fitted without them."""

    name: str
    rows: pl.DataFrame
    labels: np.ndarray
    predictions: dict[Step, np.ndarray]
    ladder: Ladder

    @property
    def competition(self) -> Competition:
        """The competition that the rows are of."""
        return self.ladder.competition


@dataclass(frozen=True)
class Draw:
    """What the planner does not know: how fast the machine is, and what goes wrong."""

    seed: int
    profiles: dict[str, str]
    """Member -> its profile."""

    def members(self, case: Case) -> dict[str, dict[str, Any]]:
        """Returns the members' entries in the package's manifest."""
        folds: dict[str, list[int]] = {}
        for step in case.predictions:
            folds.setdefault(step.member, []).append(step.fold)
        common = {"precision": "fp16", "passes": ["first"], "gains": {}}
        return {name: PROFILES[self.profiles[name]] | common | {"folds": each} for name, each in folds.items()}


class Machine:
    """Draws what each chunk really takes: 0.2 to 1.5 times the promised speed, more or less by member; accidents."""

    def __init__(self, draw: Draw, members: dict[str, dict[str, Any]]) -> None:
        self.random = np.random.default_rng([draw.seed, 1])
        level = self.random.uniform(0.2, 1.5)
        self.speed = {device: level * self.random.uniform(0.85, 1.15) for device in DEVICES}
        self.factor = {name: float(np.exp(self.random.normal(0, 0.25))) for name in members}
        self.members = members
        self.broken = {name for name in members if self.random.random() < 0.02}
        self.slow_down, self.jitter = self.random.choice([1.0, 1.0, 0.6]), self.random.uniform(0.02, 0.2)
        self.chunks = 0

    def outcome(self, device: str, chunk: StepChunk) -> Outcome:
        """Returns what becomes of a chunk."""
        self.chunks += 1
        member = chunk.step.member
        slower = self.factor[member] / self.speed[device] / (self.slow_down if self.chunks > 60 else 1.0)
        figures = nominal(self.members[member], DEVICES[device])
        work = figures[1] + figures[2] * chunk.tokens + figures[3] * chunk.squares
        noise = float(np.exp(self.random.normal(0, self.jitter)))
        fate = self.random.choice(["done", "lost", "memory"], p=[0.993, 0.004, 0.003])
        found = Outcome(figures[0] * slower, work * slower * noise, "broken" if member in self.broken else fate)
        return found


@dataclass(frozen=True)
class Result:
    """How a kernel ended."""

    seconds: float
    losses: np.ndarray
    """(rows,)"""
    valid: bool


@dataclass(frozen=True)
class Spent:
    """What a kernel of the planner's gave to the costly members, and what the cheap ones had said by its end."""

    seconds: float
    """Of both GPUs together, of networks: loading, and chunks that came to nothing, too."""
    cheap: dict[Step, np.ndarray]


def replay(case: Case, draw: Draw, budget: float) -> tuple[Result, Spent]:
    """Plays the planner's kernel within `budget` seconds."""
    members = draw.members(case)
    sizes = field_characters(case.rows, case.competition.kind.fields)
    loads = loads_of(members, sizes, case.competition.kind)
    results = Results(case.rows, case.competition, members, case.ladder)
    machine = Machine(draw, members)
    present = np.tile(np.asarray(case.ladder.prior), (len(case.rows), 1))
    stacking = machine.random.uniform(2.0, 15.0)
    stop = budget - margin(budget) - WRITE_RESERVE * stacking
    schedule = Schedule(
        loads,
        Costs(members, DEVICES),
        expected_gain(case.ladder.rungs, members, case.ladder.competition.family),
        stop,
        np.sum(list(sizes.values()), axis=0),
        present,
        who_may(members, set(DEVICES)),
    )

    spent = 0.0

    def outcome(device: str, chunk: StepChunk) -> Outcome:
        nonlocal spent
        found = machine.outcome(device, chunk)
        if members[chunk.step.member]["kind"] != "tabular":
            spent += found.seconds + (found.loading if chunk.opens else 0.0)
        return found

    def finished(chunk: StepChunk) -> None:
        results.add(chunk.step, chunk.rows, case.predictions[chunk.step][chunk.rows])
        if schedule.complete(chunk.step):
            schedule.present = np.where(np.isfinite(found := results.means()[0]), found, present)

    installing = machine.random.uniform(20, 60)
    end = simulate(schedule, list(DEVICES), installing, outcome, finished) if installing < stop else 0.0
    final = np.where(np.isfinite(found := results.means()[0]), found, present)
    last = stacking * float(np.exp(machine.random.normal(0, 0.3)))
    result = Result(
        end + (last if results.values else 0.0),
        log_losses(case.labels, as_submitted(final, case.competition)),
        written(case, final),
    )
    cheap = {step: each for step, each in results.values.items() if members[step.member]["kind"] == "tabular"}
    return result, Spent(spent, cheap)


VARIANTS = {
    f"{who}, {how}": (profiles, every)
    for who, profiles in {"encoder": ("encoder",), "decoder": ("decoder",), "both": ("encoder", "decoder")}.items()
    for how, every in {"one fold model": False, "all fold models": True}.items()
}
"""Whom the rival of `most_uncertain` asks: profiles, and whether all of their fold models."""


def most_uncertain(case: Case, draw: Draw, spent: Spent, variant: str) -> np.ndarray:
    """Returns (rows,) losses where the same seconds go to the rows of which the cheap members are least sure.

    The usual cascade: as many rows as these seconds are enough for, the same ones for each costly member. It is better
    off than the planner: it knows what this machine takes, loads each fold model once, asks none that is broken, and
    no chunk of it comes to nothing.
    """
    members, (profiles, every) = draw.members(case), VARIANTS[variant]
    machine = Machine(draw, members)
    pace = np.mean([machine.speed[device] for device in DEVICES if device != "cpu"])
    loads = loads_of(members, field_characters(case.rows, case.competition.kind.fields), case.competition.kind)
    results = Results(case.rows, case.competition, members, case.ladder)
    for step, values in spent.cheap.items():
        results.add(step, np.arange(len(case.rows)), values)
    prior = np.tile(np.asarray(case.ladder.prior), (len(case.rows), 1))
    present = np.where(np.isfinite(found := results.means()[0]), found, prior)
    asked = [
        step
        for step in case.predictions
        if draw.profiles[step.member] in profiles
        and step.member not in machine.broken
        and (every or step.fold == members[step.member]["folds"][0])
    ]
    loading, work = 0.0, np.zeros(len(case.rows))
    for step in asked:
        figures = nominal(members[step.member], "t4") * machine.factor[step.member] / pace
        loading += figures[0]
        work += figures[2] * loads[step].tokens + figures[3] * loads[step].squares
    order = np.argsort(-case.competition.family.uncertainty(present), kind="stable")
    rows = order[: int(np.searchsorted(np.cumsum(work[order]), spent.seconds - loading, side="right"))]
    if len(rows):
        for step in asked:
            results.add(step, rows, case.predictions[step][rows])
    final = np.where(np.isfinite(found := results.means()[0]), found, prior)
    return log_losses(case.labels, as_submitted(final, case.competition))


def usual(case: Case, draw: Draw, budget: float) -> Result:
    """Plays the usual kernel: as many members as fit by a static estimate, in order, for all rows; then the stacker.

    Nothing is written before the end, so that a kernel that takes longer has no score; here it is given the prior's.
    """
    members = draw.members(case)
    machine = Machine(draw, members)
    sizes = field_characters(case.rows, case.competition.kind.fields)
    loads = loads_of(members, sizes, case.competition.kind)
    stacking, installing = machine.random.uniform(2.0, 15.0), machine.random.uniform(20, 60)
    results = Results(case.rows, case.competition, members, case.ladder)
    promised = real = installing
    workers = len([device for device in DEVICES if device != "cpu"])
    for step, load in loads.items():
        figures = nominal(members[step.member], "t4")
        tokens, squares = load.tokens.sum(), load.squares.sum()
        seconds = figures[0] + (figures[2] * tokens + figures[3] * squares) / workers
        if promised + seconds > budget:
            break
        promised += seconds
        pace = np.mean([machine.speed[device] for device in DEVICES if device != "cpu"])
        real += seconds * machine.factor[step.member] / pace
        if step.member not in machine.broken:
            results.add(step, np.arange(len(case.rows)), case.predictions[step])
    real += stacking
    present = np.tile(np.asarray(case.ladder.prior), (len(case.rows), 1))
    final = present if real > budget else np.where(np.isfinite(found := results.means()[0]), found, present)
    return Result(real, log_losses(case.labels, as_submitted(final, case.competition)), real <= budget)


def full_seconds(case: Case, draw: Draw) -> float:
    """Returns what everything takes on both GPUs of this very machine without accidents, which no planner knows."""
    members = draw.members(case)
    machine = Machine(draw, members)
    pace = (machine.speed["cuda:0"] + machine.speed["cuda:1"]) / 2
    loads = loads_of(members, field_characters(case.rows, case.competition.kind.fields), case.competition.kind)
    total = 60.0
    for step, load in loads.items():
        figures = nominal(members[step.member], "t4") * machine.factor[step.member] / pace
        total += figures[0] + (figures[2] * load.tokens.sum() + figures[3] * load.squares.sum()) / 2
    return total


def cheap_losses(case: Case, draw: Draw) -> np.ndarray:
    """Returns (rows,) losses of the cheap members alone, all of their fold models."""
    members = draw.members(case)
    results = Results(case.rows, case.competition, members, case.ladder)
    for step, values in case.predictions.items():
        if members[step.member]["kind"] == "tabular":
            results.add(step, np.arange(len(case.rows)), values)
    return log_losses(case.labels, as_submitted(results.means()[0], case.competition))


def written(case: Case, probabilities: np.ndarray) -> bool:
    """Says whether the submission's writer makes a valid file of it."""
    classes = case.competition.outputs
    ids = case.rows["id"].to_list()
    even = [str(1 / len(classes))] * len(classes)
    form = SubmissionForm((case.competition.id, *classes), tuple((each, *even) for each in ids), 0)
    decided = PLAIN.apply(probabilities, case.competition)
    with tempfile.TemporaryDirectory() as folder:
        sample, file = Path(folder, "sample.csv"), Path(folder, "submission.csv")
        write_submission(sample, form, [], probabilities[:0], decided[:0], case.competition)
        write_submission(file, form, ids, probabilities, decided, case.competition)
        return validate_submission(file, sample, case.competition) == len(ids)
