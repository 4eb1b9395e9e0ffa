"""How much time the kernel has. The standard library alone: the budget is known before any wheel is installed."""

from __future__ import annotations

import os

from pipeline.errors import PodiumError

VARIABLE = "PODIUM_BUDGET_SECONDS"
LEAST_MARGIN = 3.0
MARGIN = 0.05


def margin(budget: float) -> float:
    """Seconds at the end of the budget in which nothing may run any more: 5 % of it, at least three."""
    return max(LEAST_MARGIN, MARGIN * budget)


def read_budget(promised: float, rerun: bool) -> float:
    """PODIUM_BUDGET_SECONDS where it is a positive number, else the package's own budget.

    Raises: PodiumError in the dress rehearsal where it is something else; a rerun only says so.
    """
    asked = os.environ.get(VARIABLE, "")
    try:
        budget = float(asked or promised)
        if 0 < budget < float("inf"):
            return budget
    except ValueError:
        pass
    if not rerun:
        raise PodiumError(f"{VARIABLE}: expected a positive number of seconds, found {asked}")
    print(f"problem: {VARIABLE} is {asked}; the package's budget is used", flush=True)
    return float(promised)
