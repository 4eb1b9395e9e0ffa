"""What a step is worth: the log loss that a set of members is expected to reach, as the `stack` stage measured it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.ensemble.ladder import Rung, answering_order
from pipeline.ensemble.row_priority import entropy, row_gains


@dataclass(frozen=True)
class Worth:
    """Expected log losses; no row of the test set is needed."""

    rungs: tuple[Rung, ...]
    """The prior first, the full set last."""
    folds: Mapping[str, int]
    """Member -> how many fold models the package holds."""
    passes: Mapping[str, Mapping[str, float]]
    """Member -> pass beyond the first -> expected gain in log loss of that member alone."""

    def rung(self, have: frozenset[str]) -> Rung:
        """The rung that is expected to lose least where the members in `have` have spoken; the full one if all have."""
        return next(rung for members, rung in self._order if members <= have)

    @cached_property
    def _order(self) -> list[tuple[frozenset[str], Rung]]:
        return [(frozenset(rung.members), rung) for rung in answering_order(self.rungs)]

    def loss(self, counts: Mapping[str, int]) -> float:
        """Expected log loss where `counts` fold models of each member have run.

        The average of n fold models is placed between one and all K of them by the variance that averaging removes,
        1/n.
        """
        rung = self.rung(frozenset(name for name, count in counts.items() if count > 0))
        shares = [averaged_share(counts[name], self.folds[name]) for name in rung.members]
        return rung.loss - rung.averaging * (float(np.mean(shares)) if shares else 0.0)

    def pass_gain(self, member: str, which: str, counts: Mapping[str, int]) -> float:
        """Expected gain in log loss of one fold's swap or long pass: a member's own, as far as it counts in the mix."""
        rung = self.rung(frozenset(name for name, count in counts.items() if count > 0))
        if member not in rung.members:
            return 0.0
        return self.passes.get(member, {}).get(which, 0.0) / len(rung.members) ** 2 / max(counts[member], 1)

    def row_gains(self, rung: Rung, probabilities: np.ndarray, characters: np.ndarray) -> np.ndarray:
        """(rows,) expected gain of answering each row by `rung` instead of by `probabilities` (rows, classes)."""
        return row_gains(rung.priority, entropy(probabilities), characters)


def averaged_share(count: int, folds: int) -> float:
    """How far `count` fold models are on the way from one (0) to all `folds` of them (1), in terms of variance."""
    return 0.0 if folds < 2 or count < 2 else (1.0 - 1.0 / min(count, folds)) / (1.0 - 1.0 / folds)


def worth_of(rungs: tuple[Rung, ...], members: Mapping[str, Mapping[str, Any]]) -> Worth:
    """From the ladder and the manifest's `members`; a rung without figures is taken to gain nothing."""
    folds = {name: len(member["folds"]) for name, member in members.items()}
    return Worth(rungs, folds, {name: member.get("gains", {}) for name, member in members.items()})
