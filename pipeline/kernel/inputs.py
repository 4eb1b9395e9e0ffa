"""What the kernel's script and its environment ask for, in one piece. The standard library alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.kernel.budget import margin
from pipeline.kernel.faults import Faults


@dataclass(frozen=True)
class Call:
    """One run of the kernel."""

    package: Path
    data: Path
    """The folder with the competition's test file."""
    working: Path
    """Where the prior's submission.csv stands, and the better ones go."""
    started: float
    """When the process began, on time.monotonic()'s clock."""
    budget: float
    """Seconds from then."""
    rerun: bool
    """The scored rerun, which nothing may stop; else the dress rehearsal."""
    broken: dict[str, str]
    """What is wrong with files of the package, path -> problem; a rerun goes on without them."""
    faults: Faults

    @property
    def deadline(self) -> float:
        """After it nothing may run any more."""
        return self.started + self.budget - margin(self.budget)
