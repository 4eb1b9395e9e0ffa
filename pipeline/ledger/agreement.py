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
    """CV and public score of the submissions that have both."""

    count: int
    correlation: float | None
    """Pearson's r; None with fewer than three, or where one of the two never changed."""
    cv: float | None
    """The CV for which the interval holds."""
    interval: tuple[float, float] | None
    """Where the next public score lies 95 times in 100, if a straight line is right; None with fewer than five."""


def agreement(entries: list[Entry], cv: float | None) -> Agreement:
    """Compares CV with public scores; `cv` is the present one, not submitted yet."""
    pairs = [(one.cv, one.public) for one in entries if one.cv is not None and one.public is not None]
    x, y = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    interval = None if cv is None or len(x) < LEAST_FOR_INTERVAL else expected_next(x, y, cv)
    return Agreement(len(x), pearson(x, y), cv, interval)


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of two (n,) series; None where it means nothing."""
    if len(x) < LEAST_FOR_CORRELATION:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((dx**2).sum()) * float((dy**2).sum()))
    return float(np.clip((dx * dy).sum() / scale, -1.0, 1.0)) if scale > 0 else None


def expected_next(x: np.ndarray, y: np.ndarray, at: float, level: float = LEVEL) -> tuple[float, float]:
    """The prediction interval of a new y at x = `at`, from least squares through (n,) points with normal errors.

    The textbook interval of simple linear regression: fit ± t(n-2) s sqrt(1 + 1/n + (at - mean x)² / Sxx). Where x
    never changed, there is no line: the mean with its own interval, t(n-1) s sqrt(1 + 1/n).
    """
    n, dx = len(x), x - x.mean()
    spread = float((dx**2).sum())
    slope = float((dx * y).sum()) / spread if spread > 0 else 0.0
    freedom = n - 2 if spread > 0 else n - 1
    residuals = y - y.mean() - slope * dx
    s = math.sqrt(float((residuals**2).sum()) / freedom)
    far = (at - float(x.mean())) ** 2 / spread if spread > 0 else 0.0
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * s * math.sqrt(1.0 + 1.0 / n + far)
    middle = float(y.mean()) + slope * (at - float(x.mean()))
    return middle - reach, middle + reach


def in_words(found: Agreement) -> list[str]:
    """One line about the correlation, one about the next score."""
    if found.correlation is None:
        few = found.count < LEAST_FOR_CORRELATION
        why = f"needs {LEAST_FOR_CORRELATION} submissions with a score" if few else "CV or LB never changed"
        lines = [f"Pearson correlation of CV and public LB: – ({found.count} so far; {why})"]
    else:
        lines = [f"Pearson correlation of CV and public LB over {found.count} submissions: {found.correlation:.3f}"]
    if found.cv is None:
        return lines
    if found.interval is None:
        left = f"too few to say where the next LB will be ({found.count} of {LEAST_FOR_INTERVAL} submissions)"
        return [*lines, f"present CV {found.cv:.5f}: {left}"]
    low, high = found.interval
    span = f"{low:.5f} to {high:.5f}"
    return [*lines, f"present CV {found.cv:.5f}: the next public LB is expected from {span} (95 of 100 times)"]
