"""The ladder: stackers for growing sets of members, so that the kernel can answer with whatever has run so far.

The first rung is the prior and needs no member; the last has them all. A row is answered by the last rung if all
members have answered it, else by the one of which the least loss is expected among those whose members have. Where that
is less than half of the members that have answered, their calibrated mean is the last resort.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.decision import PLAIN, Decision
from pipeline.competitions.family import average
from pipeline.competitions.task import Competition
from pipeline.ensemble import stackers
from pipeline.ensemble.calibration import UNCALIBRATED, Calibration
from pipeline.ensemble.stack_inputs import stack_inputs
from pipeline.files import read_json, write_json
from pipeline.section import from_json

PRIOR = "prior"
LAST_RESORT = "mean"
"""Stands for the mean of calibrated members, where too few of those that have answered make up a rung."""
FILE = "ladder.json"
ByMember = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rung:
    """A set of members and the stacker that was fitted for exactly this set."""

    name: str
    members: tuple[str, ...]
    model: stackers.Stacker | None
    """None for the prior."""
    calibration: Calibration = UNCALIBRATED
    loss: float = math.inf
    """Loss that is expected of it where one fold model of each member has answered."""
    averaging: float = 0.0
    """What the average of all fold models takes from that."""
    priority: tuple[float, ...] = ()
    """Coefficients that tell which rows gain from this rung; see row_priority.py."""
    decision: Decision = PLAIN
    """From its means to labels."""

    @property
    def stacker(self) -> str:
        """`prior`, or a candidate of pipeline/ensemble/fitting.py."""
        return self.model.name if self.model else PRIOR

    @property
    def wants_features(self) -> bool:
        """Whether the stacker reads the text features beside the members' logits."""
        return isinstance(self.model, stackers.Boosted)


@dataclass(frozen=True)
class Ladder:
    """The rungs from the prior to the full set."""

    rungs: tuple[Rung, ...]
    prior: tuple[float, ...]
    """The constant predictor's mean, (outputs,): of classes, their shares of the training rows."""
    competition: Competition

    def predict(
        self,
        available: ByMember,
        rows: pl.DataFrame,
        averaged: ByMember | None = None,
        features: pl.DataFrame | None = None,
    ) -> tuple[np.ndarray, list[str]]:
        """Returns (rows, outputs) means, and the name of the rung that answered each row.

        available: a (rows, outputs) array per member that has run; a row that it lacks is NaN. averaged: per member
        and row, (rows,), how far it is from one fold model (0) to the average of all (1); by default all have run.
        features: the rows' text features, where they are known already.
        """
        result = np.tile(np.asarray(self.prior), (len(rows), 1))
        answered = np.full(len(rows), PRIOR, dtype=object)
        names = list(available)
        finite = [np.isfinite(available[name]).all(axis=1) for name in names]
        has_answer = np.stack(finite, axis=1) if names else np.zeros((len(rows), 0), dtype=bool)
        for pattern in np.unique(has_answer, axis=0):
            mine = (has_answer == pattern).all(axis=1)
            have = frozenset(name for name, has in zip(names, pattern, strict=True) if has)
            asked = rows.filter(pl.Series(mine))
            known = None if features is None else features.filter(pl.Series(mine))
            given = {name: available[name][mine] for name in have}
            shares = {name: averaged[name][mine] for name in have} if averaged else None
            rung = self.choice(have)
            if rung is None:
                alone = [self._answer(self._alone(name), given, asked, shares, known) for name in sorted(have)]
                result[mine], answered[mine] = average(self.competition.family, alone), LAST_RESORT
            elif rung.model is not None:
                result[mine], answered[mine] = self._answer(rung, given, asked, shares, known), rung.name
        return result, list(answered)

    def decide(self, means: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Returns the labels that (rows, outputs) means become, each row's by the rung of that name."""
        full = self.rungs[-1].decision
        by_name = {rung.name: rung.decision for rung in self.rungs}
        decided, answered = full.apply(means, self.competition), np.asarray(names)
        for name in set(names):
            mine = answered == name
            decided[mine] = by_name.get(name, full).apply(means[mine], self.competition)
        return decided

    def choice(self, have: frozenset[str]) -> Rung | None:
        """Returns the rung for rows that exactly the members in `have` have answered; None for these members' mean.

        Where no stacker was fitted for the very set, it is the best of those for a part of it, if that is at least half
        of it.
        """
        best = next(rung for rung in answering_order(self.rungs) if have.issuperset(rung.members))
        return best if 2 * len(best.members) >= len(have) else None

    def _alone(self, name: str) -> Rung:
        """Returns the rung of a single member; without one its answer stays as it is."""
        plain = Rung(name, (name,), stackers.equal_mean(1, len(self.prior)))
        return next((rung for rung in self.rungs if rung.members == (name,)), plain)

    def _answer(
        self, rung: Rung, given: ByMember, rows: pl.DataFrame, averaged: ByMember | None, features: pl.DataFrame | None
    ) -> np.ndarray:
        """Returns the rung's calibrated answer, (rows, outputs)."""
        assert rung.model is not None
        means = [given[name] for name in rung.members]
        inputs = stack_inputs(means, rows, self.competition, rung.wants_features, features)
        share = np.mean([averaged[name] for name in rung.members], axis=0) if averaged else 1.0
        predicted = stackers.predict(rung.model, inputs, self.competition)
        return rung.calibration.apply(predicted, self.competition.family, share)


def answering_order(rungs: Sequence[Rung]) -> list[Rung]:
    """Returns `rungs` as they answer where several could: the full set, then by expected loss; the prior last."""
    full = max(len(rung.members) for rung in rungs)
    return sorted(rungs, key=lambda r: (len(r.members) < full, not r.members, r.loss, -len(r.members)))


def save_ladder(ladder: Ladder, folder: Path) -> None:
    """Writes ladder.json and one text file per LightGBM stacker into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    saved: list[dict[str, Any]] = []
    for number, rung in enumerate(ladder.rungs):
        entry: dict[str, Any] = {"name": rung.name, "members": list(rung.members)}
        model = rung.model
        entry |= stackers.save(model, folder, f"rung{number}") if model else {"stacker": PRIOR}
        worth = {"loss": rung.loss, "averaging": rung.averaging, "priority": list(rung.priority)}
        fitted = {"calibration": asdict(rung.calibration), "decision": asdict(rung.decision)}
        saved.append(entry | fitted | {"worth": worth})
    write_json(folder / FILE, {"prior": list(ladder.prior), "rungs": saved})


def load_ladder(folder: Path, competition: Competition, threads: int = 2) -> Ladder:
    """Returns the ladder that `save_ladder` wrote into `folder`."""
    saved = read_json(folder / FILE)
    rungs = tuple(
        Rung(
            entry["name"],
            tuple(entry["members"]),
            None if entry["stacker"] == PRIOR else stackers.load(entry, folder, threads),
            from_json(Calibration, entry["calibration"]),
            decision=from_json(Decision, entry["decision"]),
            **entry["worth"] | {"priority": tuple(entry["worth"]["priority"])},
        )
        for entry in saved["rungs"]
    )
    return Ladder(rungs, tuple(saved["prior"]), competition)
