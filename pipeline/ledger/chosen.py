"""What `make choose` has named: the two submissions to select, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError
from pipeline.ledger.ledger import decimals

CHOICE = Path("work/choice.json")
"""The newest one; it belongs to no commit."""


@dataclass(frozen=True)
class Candidate:
    """One submission to choose from; scores are in the competition's metric."""

    submission: int
    cv: float
    """On the rows that all have in common."""
    public: float | None
    expected: float
    """Private score."""
    best: float
    """The probability that it is the best of all."""
    selected: bool


@dataclass(frozen=True)
class Selection:
    """The two submissions to select, among their candidates."""

    candidates: tuple[Candidate, ...]
    sentences: tuple[str, ...]
    """What is expected of the two, of others' choices, and what is assumed."""

    def lines(self) -> list[str]:
        """Returns the table, and the sentences."""
        lines = ["sub  CV on common rows  public LB  expected private  is best of all"]
        for one in self.candidates:
            cells = (decimals(one.cv), decimals(one.public), decimals(one.expected))
            mark = "  <- select" if one.selected else ""
            lines.append(f"{one.submission:>3}  {cells[0]:>17}  {cells[1]:>9}  {cells[2]:>16}  {one.best:>14.1%}{mark}")
        return [*lines, "", *self.sentences]


def read_selection(found: Any) -> Selection:
    """Returns what `make choose` has written as JSON. Raises: PodiumError where it is something else."""
    try:
        return Selection(tuple(Candidate(**one) for one in found["candidates"]), tuple(found["sentences"]))
    except (LookupError, TypeError) as error:
        raise PodiumError(f"{CHOICE}: broken ({error}); run `make choose`, or delete it") from None
