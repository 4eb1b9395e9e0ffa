"""What metrics/cv.json states, as typed objects; pipeline/evaluation/cv.py computes them.

The names of the fields and their order are the file's contract. None is written as null, and a field that is ABSENT has
no key at all. Scores are in the competition's own metric.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from pipeline.ensemble.calibration import Calibration
from pipeline.ensemble.uncertainty import Interval
from pipeline.evaluation.leak_test import LeakTest

Absent = Enum("Absent", "ABSENT")
ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class MemberScores:
    """One member, on the rows that it covers. `stopped` and what follows need a record of training."""

    score: float
    fold_scores: list[float]
    holdout: float | None
    """The score of the average of its fold models."""
    attempts: int
    """The most that one of its fold models needed."""
    collapsed: int
    """How many of its fold models are no better than the prior; a member with any is left out of the stack."""
    rows: int
    gap: LeakTest | Absent | None
    """None where the holdout does not say; absent for a member that is left out."""
    seconds: float | None
    """What training its fold models took here."""
    stopped: list[str] | Absent
    """A line for each attempt that the guard ended or gave up."""
    updates: float | Absent
    """All steps that were made, as a share of those of runs that succeed at once."""
    truncation: dict[str, dict[str, float]] | Absent
    """Field -> `rows` and `tokens`, the shares that were cut, averaged over the folds."""


@dataclass(frozen=True)
class StackScores:
    """The chosen stacker, on the rows that all members cover; `score` and `candidates` are level-2 nested."""

    chosen: str
    score: float
    standard_error: float
    rows: int
    holdout: float | None
    """Cross-fitted: each half of the holdout under the shift that the other half gave."""
    temperature: float
    calibration: Calibration
    single_on_holdout: float | None
    """On the holdout when fed one fold model per member: the mean over the folds."""
    candidates: dict[str, float]
    best_member: str
    gains: dict[str, dict[str, Interval] | None]
    """`nested` and `holdout` -> `best_member` and `equal_mean` -> what the stack gains over it; positive is better."""


@dataclass(frozen=True)
class DecisiveScores:
    """Log losses on the rows that name a winner, with probabilities renormalised over the sides."""

    prior: float
    members: dict[str, float]
    stack: float


@dataclass(frozen=True)
class CvScores:
    """Everything that metrics/cv.json states, on the training rows outside the holdout."""

    competition: str
    metric: str
    rows: int
    classes: dict[str, float]
    """Class -> its share of the rows."""
    prior: float
    """The score of answering every row with these shares."""
    bayes: float | Absent
    """The score of the true probabilities, where the data was generated."""
    members: dict[str, MemberScores]
    """In the ladder's order; those that are left out come last."""
    stack: StackScores
    decisive: DecisiveScores | Absent
    warnings: list[str]
    dropped: dict[str, str] | Absent
    """Member that is left out -> why; absent where there is none."""

    def as_json(self) -> dict[str, Any]:
        """Returns the contents of metrics/cv.json; a score that the rows do not have (AUC of one class) is null."""
        given = asdict(self, dict_factory=lambda pairs: {name: value for name, value in pairs if value is not ABSENT})
        found: dict[str, Any] = _finite(given)
        return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
