"""What a step gains: the loss that a set of members is expected to reach, as the `stack` stage measured it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.competitions.family import Family
from pipeline.ensemble.ladder import Rung, answering_order
from pipeline.ensemble.row_priority import row_gains
from pipeline.planning.steps import Members


@dataclass(frozen=True)
class ExpectedGain:
    """Expected losses of sets of members, and what more work takes from them; no test row is needed."""

    rungs: tuple[Rung, ...]
    """The prior first, the full set last."""
    folds: Mapping[str, int]
    """Member -> how many fold models the package holds."""
    passes: Mapping[str, Mapping[str, float]]
    """Member -> pass beyond the first -> expected gain of that member alone."""
    family: Family
    averaged: Mapping[str, float] = field(default_factory=dict)
    """Member -> what share of the averaging its first model brings alone, where that is its fold models' average."""

    def rung(self, have: frozenset[str]) -> Rung:
        """Returns the rung with the least expected loss if the members in `have` have run; the full one if all have."""
        return next(rung for members, rung in self._order if members <= have)

    @cached_property
    def _order(self) -> list[tuple[frozenset[str], Rung]]:
        return [(frozenset(rung.members), rung) for rung in answering_order(self.rungs)]

    def loss(self, counts: Mapping[str, int]) -> float:
        """Returns the expected loss if `counts` fold models of each member have run.

        The average of n fold models lies between one and all K by the variance that averaging leaves, 1/n.
        """
        rung = self.rung(frozenset(name for name, count in counts.items() if count > 0))
        shares = [
            max(self.averaged.get(name, 0.0), averaged_share(counts[name], self.folds[name])) for name in rung.members
        ]
        return rung.loss - rung.averaging * (float(np.mean(shares)) if shares else 0.0)

    def pass_gain(self, member: str, which: str, counts: Mapping[str, int]) -> float:
        """Returns the expected gain of one fold's swap or long pass: its member's own, as far as that counts."""
        rung = self.rung(frozenset(name for name, count in counts.items() if count > 0))
        if member not in rung.members:
            return 0.0
        return self.passes.get(member, {}).get(which, 0.0) / len(rung.members) ** 2 / max(counts[member], 1)

    def row_gains(self, rung: Rung, means: np.ndarray, characters: np.ndarray) -> np.ndarray:
        """Returns (rows,) the expected gain of answers by `rung` in place of `means` (rows, outputs)."""
        return row_gains(rung.priority, self.family.uncertainty(means), characters)


def averaged_share(count: int, folds: int) -> float:
    """Returns how far `count` fold models are on the way from one (0) to all `folds` of them (1), in variance."""
    return 0.0 if folds < 2 or count < 2 else (1.0 - 1.0 / min(count, folds)) / (1.0 - 1.0 / folds)


def expected_gain(rungs: tuple[Rung, ...], members: Members, family: Family) -> ExpectedGain:
    """Returns the gains of a ladder and the manifest's `members`; a rung or pass without figures gains nothing."""
    folds = {name: len(member["folds"]) for name, member in members.items()}
    averaged = {name: member.get("averaged", 0.0) for name, member in members.items()}
    gains = {name: member.get("gains", {}) for name, member in members.items()}
    return ExpectedGain(rungs, folds, gains, family, averaged)
