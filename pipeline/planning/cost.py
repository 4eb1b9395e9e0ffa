"""How long a step will take: a model per (member, device), which starts from nominal speeds and learns from each chunk.

seconds = a + b * tokens + c * sum(L^2), and loading once per fold model that a worker opens. A Bayesian linear
regression in relative errors gives the coefficients: before any chunk they are nominal figures times what other members
have shown about the device, with a wide spread; each finished chunk narrows it. Timings of a dress rehearsal replace
the nominal figures and their spread. Hardware is a key of CARDS in pipeline/machines.py, as `t4` or `cpu`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.kinds import kind_of
from pipeline.machines import CARDS, card_of
from pipeline.planning.steps import Members

SPREAD, SPREAD_KNOWN, SPREAD_MEASURED = 1.0, 0.5, 0.2
"""Relative standard deviation of a coefficient: nominal; nominal on a device that was observed; from a rehearsal."""
NOISE = 0.1
"""Relative standard deviation of a chunk's seconds before any was observed; later it is at least half of that."""
KEEP = 0.85
"""An observation's weight is multiplied by it with each later one, so that a machine that slows down is noticed."""
SHRINK = 0.3
"""The weight, in members, of the assumption that a device is as fast as the starting figures say."""
LOADING_NOISE = 0.3

OPENING = 4.0
"""Seconds of imports and of building the network, before the first byte is read."""
NO_NETWORK = (0.5, 0.05, 4.0e-7, 0.0)
"""Loading, and a, b, c, of a member without a network: about 0.4 ms for a row of 4,000 characters."""


@dataclass(frozen=True)
class WorkerDevice:
    """A device that a worker process computes on."""

    name: str
    """`cpu`, `cpu:1` (a second one on purpose), `cuda:0`, ..."""
    model: str
    """`cpu`, or the name that the GPU gives itself."""

    @property
    def hardware(self) -> str:
        """Whose nominal figures hold for it: a key of CARDS."""
        return card_of(self.model)


def nominal(member: Mapping[str, Any], hardware: str) -> np.ndarray:
    """Returns (4,) seconds of loading, and per chunk, token and squared length, of a member (its manifest entry)."""
    kind = kind_of(member["kind"])
    if not kind.network:
        return np.array(NO_NETWORK)
    work, card = member["work"], CARDS[hardware]
    attention = 4.0 * work["layers"] * work["hidden"] * kind.attention
    loading = OPENING + work["bytes"] / card.reads
    return np.array([loading, 0.02, 2.0 * work["parameters"] / card.flops, max(attention, 1.0) / card.flops])


@dataclass
class Observations:
    """What was observed of one member on one device: the sums of its regression, and figures of chunks and loads."""

    precision: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    pull: np.ndarray = field(default_factory=lambda: np.zeros(3))
    ratios: list[float] = field(default_factory=list)
    """Seconds of each chunk, divided by what the starting figures say."""
    residuals: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)


class Costs:
    """Expected seconds of chunks, with their uncertainty."""

    def __init__(self, members: Members, hardware: Mapping[str, str], timings: dict[str, Any] | None = None) -> None:
        """`hardware`: device -> its hardware. `timings`: member -> hardware -> what `fitted` gave in a rehearsal."""
        self.hardware = hardware
        self.networks = {name for name, member in members.items() if kind_of(member["kind"]).network}
        self.start: dict[tuple[str, str], np.ndarray] = {}
        self.measured: set[tuple[str, str]] = set()
        for name, member in members.items():
            for each in set(hardware.values()):
                known = (timings or {}).get(name, {}).get(each)
                if known:
                    self.measured.add((name, each))
                figures = [known[key] for key in ("load", "a", "b", "c")] if known else nominal(member, each)
                self.start[name, each] = np.maximum(np.asarray(figures, dtype=np.float64), 1.0e-12)
        self.observed: dict[tuple[str, str], Observations] = {}
        self._solved: dict[tuple[str, str], tuple[np.ndarray, np.ndarray, float]] = {}

    def observe(self, member: str, device: str, tokens: float, squares: float, seconds: float) -> None:
        """Learns that a chunk of that many tokens and squared lengths has taken `seconds`."""
        seconds = max(seconds, 1.0e-6)
        expected, _ = self.expect(member, device, tokens, squares)
        parts = self.start[member, self.hardware[device]][1:] * (1.0, tokens, squares)
        seen = self.observed.setdefault((member, device), Observations())
        if seen.ratios:
            seen.residuals.append(seconds / expected - 1.0)
        # By what was expected: weighed by what it took, a slow chunk would count less than a fast one.
        noise = (NOISE * expected) ** 2
        seen.precision = KEEP * seen.precision + np.outer(parts, parts) / noise
        seen.pull = KEEP * seen.pull + parts * seconds / noise
        seen.ratios.append(seconds / parts.sum())
        self._solved.clear()

    def observe_load(self, member: str, device: str, seconds: float) -> None:
        """Learns that opening a fold model has taken `seconds`."""
        self.observed.setdefault((member, device), Observations()).loads.append(seconds)

    def expect(self, member: str, device: str, tokens: float, squares: float) -> tuple[float, float]:
        """Returns mean and standard deviation of the seconds of a chunk, without loading."""
        factors, covariance, noise = self._solve(member, device)
        parts = self.start[member, self.hardware[device]][1:] * (1.0, tokens, squares)
        mean = float(parts @ factors)
        return mean, float(np.sqrt(max(parts @ covariance @ parts, 0.0) + (noise * mean) ** 2))

    def rates(self, member: str, device: str) -> np.ndarray:
        """Returns (3,) expected seconds per chunk, token and squared length."""
        return self.start[member, self.hardware[device]][1:] * self._solve(member, device)[0]

    def loading(self, member: str, device: str) -> tuple[float, float]:
        """Returns mean and standard deviation of the seconds that opening a fold model takes."""
        loads = self.observed.get((member, device), Observations()).loads
        if loads:
            mean = float(np.mean(loads[-3:]))
            return mean, LOADING_NOISE * mean
        key = member, self.hardware[device]
        return self.start[key][0], (SPREAD_MEASURED if key in self.measured else SPREAD_KNOWN) * self.start[key][0]

    def fitted(self) -> dict[str, dict[str, dict[str, float]]]:
        """Returns member -> hardware -> load, a, b, c in seconds, and the noise of a chunk, for what was observed."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for (member, device), seen in sorted(self.observed.items()):
            if seen.ratios:
                figures = {"load": self.loading(member, device)[0]}
                figures |= dict(zip("abc", self.rates(member, device).tolist(), strict=True))
                found.setdefault(member, {})[self.hardware[device]] = figures | {"noise": self._noise(seen)}
        return found

    def _solve(self, member: str, device: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Returns (3,) factors on the starting figures, their (3, 3) covariance, and the relative noise of a chunk."""
        key = (member, device)
        if key not in self._solved:
            seen, others = self.observed.get(key, Observations()), self._others(member, device)
            ratio, spread = float(np.exp(sum(others) / (len(others) + SHRINK))), SPREAD_KNOWN if others else SPREAD
            if (member, self.hardware[device]) in self.measured:
                spread = SPREAD_MEASURED
            if seen.ratios:  # its own chunks say more about the level than any promise
                ratio, spread = float(np.exp(np.mean(np.log(seen.ratios[-5:])))), SPREAD_KNOWN
            prior = np.eye(3) / (spread * ratio) ** 2
            covariance = np.linalg.inv(prior + seen.precision)
            factors = covariance @ (prior @ np.full(3, ratio) + seen.pull)
            self._solved[key] = np.maximum(factors, 0.02 * ratio), covariance, self._noise(seen)
        return self._solved[key]

    def _others(self, member: str, device: str) -> list[float]:
        """Returns log ratios of seconds to starting figures of the device's other networks, or of what is none."""
        network = member in self.networks
        return [
            float(np.mean(np.log(seen.ratios[-5:])))
            for (other, where), seen in self.observed.items()
            if where == device and seen.ratios and other != member and (other in self.networks) == network
        ]

    @staticmethod
    def _noise(seen: Observations) -> float:
        recent = seen.residuals[-20:]
        squares = (5 * NOISE**2 + sum(min(each, 2.0) ** 2 for each in recent)) / (5 + len(recent))
        return max(float(np.sqrt(squares)), NOISE / 2)
