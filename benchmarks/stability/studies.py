"""Which runs belong together, and what their result files are called."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.stability.protocol import SCREENED, SEEDS, SETS
from benchmarks.stability.runs import Asked
from benchmarks.stability.strategies import ATTACKS, BEST, GENTLE, STRATEGIES

GUARDED = ("plain", "guard")
"""Measured at every rate, on both sets, with every seed."""
POOL = range(50)
"""Seeds of the ten epochs from which ensembles of ten are drawn, beside DENI's 25."""
CONFIRMED = ("smooth-mlm, awp", "smart, wide", "smart, proximal")
"""Attacks and penalties with high means on the choice half of their screening: with every seed."""


@dataclass(frozen=True)
class Study:
    """Runs, the most important ones first, and the name of the files that say what came out."""

    cells: list[Asked]
    name: str


def _guard() -> list[Asked]:
    whole = [
        Asked(name, data, rate, seed)
        for seed in SEEDS
        for rate in ("high", "middle", "low")
        for data in SETS
        for name in GUARDED
    ]
    elsewhere = (*GUARDED, *ATTACKS, *GENTLE, "ten epochs", "deni")
    quiet = [name for name in STRATEGIES if name not in elsewhere]
    screening = [Asked(name, "sentiment", "middle", seed) for seed in SCREENED for name in quiet]
    # What takes twenty epochs comes last, so that it keeps nothing else waiting.
    screening.sort(key=lambda each: STRATEGIES[each.strategy].changed.get("epochs", 0))
    best = [Asked(BEST, data, "middle", seed) for seed in SEEDS for data in SETS]
    return whole + screening + [each for each in best if each not in screening]


def _attacks() -> list[Asked]:
    compared = ("plain", BEST, *CONFIRMED)
    screening = [Asked(name, "sentiment", "middle", seed) for seed in SCREENED for name in ("plain", BEST, *ATTACKS)]
    whole = [Asked(name, "sentiment", "middle", seed) for seed in SEEDS for name in compared]
    long = {"deni": SEEDS, "ten epochs": POOL}
    last = [Asked(name, "sentiment", "low", seed) for seed in POOL for name in long if seed in long[name]]
    return screening + [each for each in whole if each not in screening] + last


def _gentle() -> list[Asked]:
    return [Asked(name, "sentiment", "high", seed) for seed in SEEDS for name in (*GUARDED, *GENTLE)]


STUDIES = {
    "guard": Study(_guard(), "stability"),
    "attacks": Study(_attacks(), "attacks"),
    "gentle": Study(_gentle(), "gentle"),
}
