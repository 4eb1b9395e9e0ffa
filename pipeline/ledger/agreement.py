"""How well CV agrees with the leaderboard: their correlation, and where the next score is to be expected."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pipeline.ledger.ledger import Entry

LEAST_FOR_CORRELATION = 3
LEAST_FOR_INTERVAL = 5
LEVEL = 0.95


@dataclass(frozen=True)
class Agreement:
    """How CV and public score agree, over the submissions that have both."""

    count: int
    correlation: float | None
    """Pearson's r; None with fewer than three, or where one of the two never changed."""
    cv: float | None
    """The CV for which the interval holds."""
    interval: tuple[float, float] | None
    """Where the next public score lies 95 times in 100, if a straight line is right; None with fewer than five."""


def agreement(entries: list[Entry], cv: float | None) -> Agreement:
    """Returns how CV and public scores agree; `cv` is the present one, not submitted yet."""
    pairs = [(one.cv, one.public) for one in entries if one.cv is not None and one.public is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    interval = None if cv is None or len(x) < LEAST_FOR_INTERVAL else prediction_interval(x, y, cv)
    return Agreement(len(x), pearson(x, y), cv, interval)


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Returns Pearson's correlation of two (n,) series; None where it means nothing."""
    if len(x) < LEAST_FOR_CORRELATION or not np.ptp(x) or not np.ptp(y):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def prediction_interval(x: np.ndarray, y: np.ndarray, at: float) -> tuple[float, float]:
    """Returns the prediction interval of a new y at x = `at`, by least squares through (n,) points with normal errors.

    The interval is that of simple linear regression, fit ± t(n-2) s sqrt(1 + 1/n + (at - mean x)² / Sxx). Where x never
    changed, there is no line: the mean with its own interval, t(n-1) s sqrt(1 + 1/n).
    """
    n, dx, away = len(x), x - x.mean(), at - float(x.mean())
    slope, far, freedom = 0.0, 0.0, n - 1
    if (spread := float((dx**2).sum())) > 0:
        slope, far, freedom = float((dx * y).sum()) / spread, away**2 / spread, n - 2
    residuals = y - y.mean() - slope * dx
    s = math.sqrt(float((residuals**2).sum()) / freedom)
    reach = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * s * math.sqrt(1.0 + 1.0 / n + far)
    middle = float(y.mean()) + slope * away
    return middle - reach, middle + reach


def agreement_lines(found: Agreement) -> list[str]:
    """Returns a line about the correlation and, where there is a present CV, one about the next score."""
    if found.correlation is None:
        few = found.count < LEAST_FOR_CORRELATION
        why = f"needs {LEAST_FOR_CORRELATION} submissions with a score" if few else "CV or LB never changed"
        lines = [f"Pearson correlation of CV and public LB: – ({found.count} so far; {why})"]
    else:
        lines = [f"Pearson correlation of CV and public LB over {found.count} submissions: {found.correlation:.3f}"]
    if found.cv is None:
        return lines
    if found.interval is None:
        outlook = f"too few to say where the next LB will be ({found.count} of {LEAST_FOR_INTERVAL} submissions)"
    else:
        low, high = found.interval
        outlook = f"the next public LB is expected from {low:.5f} to {high:.5f} (95 of 100 times)"
    return [*lines, f"present CV {found.cv:.5f}: {outlook}"]
