"""What each source of rows from elsewhere has brought to the members that learn it, as `make sources` has measured it.

It costs trainings of its own, so nothing measures it unasked: what is not known is told as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError
from pipeline.files import read_json

SOURCES = Path("work/sources.json")
"""Member -> `start`, the hash of its start file then, `folds`, `rows` of them, and `gains`: source -> `mean`, `low` and
`high` in nats. It belongs to no commit."""
ALL = "all of them"
"""Stands among the sources for leaving out every one, where there are several."""


@dataclass(frozen=True)
class Brought:
    """What one source brought to one member."""

    member: str
    source: str
    learned: int | None
    """Rows of the source that a fold model learns, on average; None for all sources together."""
    gain: Mapping[str, float] | None
    """By how many nats the loss is lower with it, with the ends of the 95 % interval; None: not measured."""
    rows: int
    """On which that was measured."""
    folds: tuple[int, ...]
    outdated: bool
    """Whether the member has been trained in another way since."""

    def line(self) -> str:
        """Returns it in one line."""
        if self.gain is None:
            return f"{self.member}: what {self.source} brings is not measured; make sources MEMBER={self.member}"
        mean, low, high = (self.gain[key] for key in ("mean", "low", "high"))
        where = f"{self.rows:,} rows of fold{'s' if len(self.folds) > 1 else ''} {', '.join(map(str, self.folds))}"
        before = f" (before its last change: make sources MEMBER={self.member})" if self.outdated else ""
        return f"{self.member}: {self.source} brought {mean:+.4f} nats ({low:+.4f} to {high:+.4f}) on {where}{before}"


def brought(receipts: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]) -> list[Brought]:
    """Returns what is known of each member and source that stand in fold models' `receipts`; `measured`: SOURCES."""
    learned: dict[str, dict[str, list[int]]] = {}
    starts: dict[str, str] = {}
    for receipt in receipts:
        starts[receipt["member"]] = receipt.get("start", "")
        for source, told in receipt.get("extra", {}).items():
            learned.setdefault(receipt["member"], {}).setdefault(source, []).append(told["rows"])
    found = []
    for member, sources in sorted(learned.items()):
        known = measured.get(member, {})
        gains, about = known.get("gains", {}), (known.get("rows", 0), tuple(known.get("folds", ())))
        outdated = known.get("start") != starts[member]
        for source, counts in sources.items():
            mean = round(sum(counts) / len(counts))
            found.append(Brought(member, source, mean, gains.get(source), *about, outdated))
        if ALL in gains and len(sources) > 1:
            found.append(Brought(member, ALL, None, gains[ALL], *about, outdated))
    return found


def read_measured(root: Path = Path()) -> dict[str, Any]:
    """Returns the contents of SOURCES, nothing where there is none. Raises: PodiumError where it is no JSON object."""
    file = root / SOURCES
    if not file.is_file():
        return {}
    try:
        found = read_json(file)
    except ValueError as error:
        raise PodiumError(f"{SOURCES}: broken ({error}); run `make sources`, or delete it") from None
    if not isinstance(found, dict):
        raise PodiumError(f"{SOURCES}: broken (no object); run `make sources`, or delete it")
    return found
