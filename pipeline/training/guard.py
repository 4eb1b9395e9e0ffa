"""Tells a run that learns nothing from a slow one, by what the loop saw in its steps.

Every sign is of the plain loss and of the logits that the network gave while it learned, so that label smoothing,
averages and the inner slice change nothing. The loss is measured by what can be won: a gain is a share of the constant
predictor's own loss, so that a rare class needs no more of it than it has, and it counts as none only where chance
alone would not hide it in so many rows.

A flat loss alone stops no run before its end: a slow task may not have left the prior yet, where it may even have begun
(heads.py). It takes a second sign with it (Mosbach et al. 2020, arXiv 2006.04884, describe them): logits that no longer
differ from row to row, gradients that no longer reach the bottom of the network, or, late, one class for every row.
Spread and gradients are compared with the same run's own best, so that neither the size of the network nor the task
sets a threshold. At the end a flat loss is enough, unless the inner slice knows better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.competitions.family import Categorical
from pipeline.training.prior import Prior

WAIT, EVERY, WINDOW = 0.15, 0.05, 0.1
"""Shares of the steps: before the first look, from look to look, and what each look sees."""
LEAST = 64
"""Rows that a look sees at least; fewer say nothing."""
FLAT = 0.01 / math.log(3)
"""Share of the prior's loss that a run must win: 0.01 nats per row of three equal classes."""
ERRORS = 2.0
"""A gain is too small only if it is so with that many standard errors added."""
SPREAD, GRADIENT = 0.2, 0.1
"""What remains, as a share of the run's own best window, counts as vanished below that."""
NOTHING = 1.0e-3
"""So little spread is none, whatever it was before."""
ALL = 0.99
"""Share of the rows that get one class, above which they all do."""
LATE = 0.5
"""Share of the steps after which one class is a sign: a run learns the classes' shares first, then a difference."""
COMMON = 0.8
"""A class with that share of the labels may be the likeliest for every row, and rightly."""
SCRAP = 0.03
"""A network that gives every row one class at its end must win that share of the prior's loss."""
SKIPS = 5
"""So many steps in a row may be lost to fp16 overflows."""


class Seen(NamedTuple):
    """What one step of the optimiser showed."""

    rows: int
    gain: float
    """Sum over the rows of (plain loss of the prior - that of the network), in nats."""
    squares: float
    """Sum of the squares of the same."""
    spread: float
    """Standard deviation over the rows of the logit that differs most."""
    bottom: float
    """Norm of the gradient of the lowest layer that learns; 0 where there is none."""
    head: float
    """Norm of the gradient of everything above the backbone."""
    predicted: list[int]
    """Rows for which each class was the likeliest; none where an answer is no class."""
    scale: float
    """The fp16 scaler's, after the step."""
    skipped: bool


def seen(logits: np.ndarray, labels: np.ndarray, prior: Prior, norms: list[float], scale: float, skipped: bool) -> Seen:
    """Returns what the step's logits (rows, outputs) show beside the labels of the same rows.

    `norms` are those of the gradients of the lowest layer that learns and of everything above the backbone.
    """
    family, values = prior.family, logits.astype(np.float64)
    losses, _ = family.loss_and_slope(values.copy(), family.statistic(labels))
    gains = prior.losses(labels) - losses
    counts: list[int] = []
    if isinstance(family, Categorical):
        counts = np.bincount(values.argmax(axis=1), minlength=family.outputs).tolist()
    spread, (bottom, head) = float(values.std(axis=0).max()), norms
    sums = float(gains.sum()), float((gains**2).sum())
    return Seen(len(gains), *sums, spread, bottom, head, counts, scale, skipped)


def alarm(steps: list[Seen], total: int, prior: Prior) -> str | None:
    """Returns why a run of `total` steps must stop after these; None where it may go on."""
    last = steps[-(SKIPS + 1) :]
    if len(last) > SKIPS and all(each.skipped for each in last):
        return f"{SKIPS + 1} steps in a row were lost to fp16 overflows"
    if last[-1].scale < 1:
        return f"fp16 overflows brought the loss scale down to {last[-1].scale:.2g}"
    done, every = len(steps), max(1, int(EVERY * total))
    if done < WAIT * total or done % every or done == total:
        return None
    width = _width(steps, WINDOW * total)
    window = steps[-width:]
    if width > done or not _below(window, FLAT * prior.loss):
        return None
    flat = f"after {done} of {total} steps the loss is {_against(window)} the prior's, and "
    spreads = [each.spread for each in steps]
    if _remaining(width, spreads) < SPREAD or np.median(spreads[-width:]) < NOTHING:
        return flat + "the logits no longer differ from row to row"
    if _remaining(width, [each.bottom / each.head if each.head else 0.0 for each in steps]) < GRADIENT:
        return flat + "the gradients no longer reach the lowest layer"
    if done >= LATE * total and _one_class(window, prior):
        return flat + "every row gets the same class"
    return None


def fruitless(steps: list[Seen], prior: Prior, inner: tuple[float, float] | None) -> str | None:
    """Returns why a run that came to its end has learned nothing; None where it has.

    `inner` is the kept weights' plain loss on the inner slice, and the prior's there. Where there is such a slice it
    alone decides: its rows taught the network nothing, and the kept weights need not be the last.
    """
    if inner is not None:
        if inner[0] <= inner[1] * (1 - FLAT / 2):
            return None
        return f"on the inner slice it is no better than the prior ({inner[0]:.3f} against {inner[1]:.3f})"
    window = steps[-_width(steps, 2 * WINDOW * len(steps)) :]
    if _below(window, FLAT * prior.loss):
        return f"at its end the loss is {_against(window)} the prior's"
    if _below(window, SCRAP * prior.loss) and _one_class(window, prior):
        return f"at its end every row gets the same class, and the loss is {_against(window)} the prior's"
    return None


def _width(steps: list[Seen], wanted: float) -> int:
    """Steps in a window: as many as wanted, three at least, and enough for LEAST rows."""
    return max(3, int(wanted), -(-LEAST // max(1, steps[0].rows)))


def _gain(window: list[Seen]) -> tuple[float, float]:
    """Returns the mean of the rows' gains and its standard error, in nats per row."""
    rows = sum(each.rows for each in window)
    mean = sum(each.gain for each in window) / rows
    variance = max(0.0, sum(each.squares for each in window) / rows - mean**2)
    return mean, math.sqrt(variance / rows)


def _below(window: list[Seen], threshold: float) -> bool:
    mean, error = _gain(window)
    return mean + ERRORS * error < threshold


def _against(window: list[Seen]) -> str:
    mean, _ = _gain(window)
    return f"{abs(mean):.3f} {'better' if mean > 0 else 'worse'} than"


def _one_class(window: list[Seen], prior: Prior) -> bool:
    if not isinstance(prior.family, Categorical) or prior.family.prior(prior.labels).max() >= COMMON:
        return False
    second, first = np.sort(prior.eta)[-2:]
    if np.median([each.spread for each in window]) < first - second:
        return False  # the logits do not differ enough yet for another class than the commonest
    counts = np.sum([each.predicted for each in window], axis=0)
    return bool(counts.max() > ALL * counts.sum())


def _remaining(width: int, values: list[float]) -> float:
    """Returns the median of the last window as a share of the best window's; 1 where nothing was ever there.

    Windows of the run's first steps are shorter: a run can lose everything within its first few.
    """
    ends = [*range(3, width, 2), *range(width, len(values) + 1, max(1, width // 2))]
    best = max((float(np.median(values[max(0, end - width) : end])) for end in ends), default=0.0)
    return float(np.median(values[-width:])) / best if best else 1.0
