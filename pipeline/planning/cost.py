"""How long a step will take: a model per (member, device), which starts from nominal speeds and learns from each chunk.

seconds = a + b * tokens + c * sum(L^2), and loading once per fold model that a worker opens. The coefficients are those
of a Bayesian linear regression in relative errors: with no chunk seen they are nominal figures times what other members
have shown about the device, with a wide spread; each finished chunk narrows it. Timings of a dress rehearsal replace
the nominal figures and their spread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SPREAD, SPREAD_KNOWN, SPREAD_MEASURED = 1.0, 0.5, 0.2
"""Relative standard deviation of a coefficient: nominal; nominal on a device that has been seen; from a rehearsal."""
NOISE = 0.1
"""Relative standard deviation of a chunk's seconds, before any has been seen; never taken to be below half of it."""
KEEP = 0.85
"""What an observation's weight shrinks by with each later one, so that a machine that slows down is noticed."""
SHRINK = 0.3
"""Of an observation: how much weight "the device is as fast as its name" has."""
LOADING_NOISE = 0.3

FLOPS = {"t4": 6.0e12, "gpu": 2.0e13, "cpu": 4.0e10}
"""Sustained per second. A T4 gives public kernels 1 (DeBERTa) to 10 (Llama) and at most 24; see docs/kernel.md."""
BYTES = {"t4": 1.5e8, "gpu": 5.0e8, "cpu": 3.0e8}
"""Read, converted and brought to the device per second when a network is loaded."""
OPENING = 4.0
"""Seconds before the first byte: imports, building the network."""
TABULAR = (0.5, 0.05, 4.0e-7, 0.0)
"""Loading, and a, b, c, of a tabular or external member: about 0.4 ms for a row of 4,000 characters."""
DISENTANGLED = 3.0
"""DeBERTa's attention has two more terms than plain attention."""


def device_kind(name: str) -> str:
    """`t4`, `gpu` or `cpu` from the name that a device calls itself."""
    if name.startswith("cpu"):
        return "cpu"
    return "t4" if "T4" in name else "gpu"


def nominal(member: dict[str, Any], kind: str) -> np.ndarray:
    """(4,) seconds: loading, and per chunk, token and squared length, of a member (its entry in the manifest)."""
    if member["kind"] in ("tabular", "external"):
        return np.array(TABULAR)
    work = member["work"]
    attention = 4.0 * work["layers"] * work["hidden"] * (DISENTANGLED if member["kind"] == "encoder" else 1.0)
    flops = FLOPS[kind]
    return np.array(
        [OPENING + work["bytes"] / BYTES[kind], 0.02, 2.0 * work["parameters"] / flops, max(attention, 1.0) / flops]
    )


@dataclass
class Seen:
    """What one member has shown on one device."""

    precision: np.ndarray = field(default_factory=lambda: np.zeros((3, 3)))
    pull: np.ndarray = field(default_factory=lambda: np.zeros(3))
    ratios: list[float] = field(default_factory=list)
    """Seconds of each chunk over what nominal figures say."""
    residuals: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)


class Costs:
    """Expected seconds of chunks, with their uncertainty."""

    def __init__(
        self, members: dict[str, dict[str, Any]], kinds: dict[str, str], timings: dict[str, Any] | None = None
    ) -> None:
        """`kinds`: device -> its kind. `timings`: member -> device kind -> what `fitted` gave in a dress rehearsal."""
        self.kinds, self.members = kinds, members
        self.start: dict[tuple[str, str], np.ndarray] = {}
        self.measured: set[tuple[str, str]] = set()
        for name, member in members.items():
            for kind in set(kinds.values()):
                known = (timings or {}).get(name, {}).get(kind)
                if known:
                    self.measured.add((name, kind))
                figures = [known[key] for key in ("load", "a", "b", "c")] if known else nominal(member, kind)
                self.start[name, kind] = np.maximum(np.asarray(figures, dtype=np.float64), 1.0e-12)
        self.seen: dict[tuple[str, str], Seen] = {}
        self._solved: dict[tuple[str, str], tuple[np.ndarray, np.ndarray, float]] = {}

    def observe(self, member: str, device: str, tokens: float, squares: float, seconds: float) -> None:
        """A chunk of so much work has taken `seconds`."""
        seconds = max(seconds, 1.0e-6)
        expected, _ = self.expect(member, device, tokens, squares)
        parts = self.start[member, self.kinds[device]][1:] * (1.0, tokens, squares)
        seen = self.seen.setdefault((member, device), Seen())
        if seen.ratios:
            seen.residuals.append(seconds / expected - 1.0)
        # By what was expected: weighed by what it took, a slow chunk would count less than a fast one.
        noise = (NOISE * expected) ** 2
        seen.precision = KEEP * seen.precision + np.outer(parts, parts) / noise
        seen.pull = KEEP * seen.pull + parts * seconds / noise
        seen.ratios.append(seconds / parts.sum())
        self._solved.clear()

    def observe_load(self, member: str, device: str, seconds: float) -> None:
        """A fold model has been opened in `seconds`."""
        self.seen.setdefault((member, device), Seen()).loads.append(seconds)

    def expect(self, member: str, device: str, tokens: float, squares: float) -> tuple[float, float]:
        """Mean and standard deviation of the seconds of a chunk, without loading."""
        factors, covariance, noise = self._solve(member, device)
        parts = self.start[member, self.kinds[device]][1:] * (1.0, tokens, squares)
        mean = float(parts @ factors)
        return mean, float(np.sqrt(max(parts @ covariance @ parts, 0.0) + (noise * mean) ** 2))

    def rates(self, member: str, device: str) -> np.ndarray:
        """(3,) expected seconds per chunk, token and squared length."""
        return self.start[member, self.kinds[device]][1:] * self._solve(member, device)[0]

    def loading(self, member: str, device: str) -> tuple[float, float]:
        """Mean and standard deviation of the seconds that opening a fold model takes."""
        loads = self.seen.get((member, device), Seen()).loads
        kind = self.kinds[device]
        if loads:
            mean = float(np.mean(loads[-3:]))
            return mean, LOADING_NOISE * mean
        mean = self.start[member, kind][0]
        return mean, (SPREAD_MEASURED if (member, kind) in self.measured else SPREAD_KNOWN) * mean

    def fitted(self) -> dict[str, dict[str, dict[str, float]]]:
        """Member -> device kind -> load, a, b, c in seconds, and the noise of a chunk, for what has been seen."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for (member, device), seen in sorted(self.seen.items()):
            if seen.ratios:
                figures = dict(zip("abc", self.rates(member, device).tolist(), strict=True))
                load = self.loading(member, device)[0]
                found.setdefault(member, {})[self.kinds[device]] = {"load": load, **figures, "noise": self._noise(seen)}
        return found

    def _solve(self, member: str, device: str) -> tuple[np.ndarray, np.ndarray, float]:
        """(3,) factors on the starting figures, their (3, 3) covariance, and the relative noise of a chunk."""
        key = (member, device)
        if key not in self._solved:
            seen, ratio = self.seen.get(key, Seen()), self._ratio(member, device)
            spread = SPREAD_KNOWN if self._others(member, device) or seen.ratios else SPREAD
            if (member, self.kinds[device]) in self.measured:
                spread = SPREAD_MEASURED
            if seen.ratios:  # its own chunks say more about the level than any promise
                ratio, spread = float(np.exp(np.mean(np.log(seen.ratios[-5:])))), SPREAD_KNOWN
            prior = np.eye(3) / (spread * ratio) ** 2
            covariance = np.linalg.inv(prior + seen.precision)
            factors = covariance @ (prior @ np.full(3, ratio) + seen.pull)
            self._solved[key] = np.maximum(factors, 0.02 * ratio), covariance, self._noise(seen)
        return self._solved[key]

    def _others(self, member: str, device: str) -> list[float]:
        """Log ratios of seconds to promises that members of the same sort have shown on the device."""
        tabular = self.members[member]["kind"] in ("tabular", "external")
        return [
            float(np.mean(np.log(seen.ratios[-5:])))
            for (other, where), seen in self.seen.items()
            if where == device
            and seen.ratios
            and other != member
            and (self.members[other]["kind"] in ("tabular", "external")) == tabular
        ]

    def _ratio(self, member: str, device: str) -> float:
        others = self._others(member, device)
        return float(np.exp(sum(others) / (len(others) + SHRINK)))

    @staticmethod
    def _noise(seen: Seen) -> float:
        recent = seen.residuals[-20:]
        squares = (5 * NOISE**2 + sum(min(each, 2.0) ** 2 for each in recent)) / (5 + len(recent))
        return max(float(np.sqrt(squares)), NOISE / 2)
