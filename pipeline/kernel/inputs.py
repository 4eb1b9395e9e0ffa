"""What one run of the kernel is given: its files, its clock and its budget. The standard library alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PodiumError
from pipeline.kernel.faults import Faults
from pipeline.planning.budget import margin

BUDGET_VARIABLE = "PODIUM_BUDGET_SECONDS"


@dataclass(frozen=True)
class KernelInputs:
    """The inputs of one run of the kernel."""

    package: Path
    data: Path
    """The folder with the competition's test file."""
    working: Path
    """The folder of submission.csv: the prior's stands there first, and better ones replace it."""
    started: float
    """When the process began, on time.monotonic()'s clock."""
    budget: float
    """Seconds from then."""
    rerun: bool
    """Whether this is the scored rerun, which nothing may stop, or the dress rehearsal."""
    broken: dict[str, str]
    """Path of a file in the package -> what is wrong with it; a rerun goes on without these files."""
    faults: Faults
    on_kaggle: bool = False
    """Whether this is Kaggle's own machine: its package says which one was asked for."""

    @property
    def deadline(self) -> float:
        """The moment after which nothing may run any more, on the same clock."""
        return self.started + self.budget - margin(self.budget)


def read_budget(promised: float, rerun: bool) -> float:
    """Returns PODIUM_BUDGET_SECONDS where it is a positive number, else the package's own budget.

    Raises: PodiumError in the dress rehearsal where it is something else; a rerun only says so.
    """
    asked = os.environ.get(BUDGET_VARIABLE, "")
    try:
        budget = float(asked or promised)
        if 0 < budget < float("inf"):
            return budget
    except ValueError:
        pass
    if not rerun:
        raise PodiumError(f"{BUDGET_VARIABLE}: expected a positive number of seconds, found {asked}")
    print(f"problem: {BUDGET_VARIABLE} is {asked}; the package's budget is used", flush=True)
    return float(promised)
