"""Tells a run that learns nothing from a slow one, by what the loop saw in its steps.

Every sign is of the plain cross entropy and of the logits that the network gave while it learned, so that label
smoothing, averages and the inner slice change nothing. A flat loss alone stops no run before its end: a slow task may
not have left the prior yet. It takes a second sign with it (Mosbach et al. 2020, arXiv 2006.04884, describe them):
logits that no longer differ from row to row, gradients that no longer reach the bottom of the network, or, late, one
class for every row. Spread and gradients are compared with the same run's own best, so that neither the size of the
network nor the task sets a threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

WAIT, EVERY, WINDOW = 0.15, 0.05, 0.1
"""Shares of the steps: before the first look, from look to look, and what each look sees."""
LEAST = 64
"""Rows that a look sees at least; fewer say nothing."""
FLAT = 0.01
"""Nats per row that a run must be better than the prior."""
SPREAD, GRADIENT = 0.2, 0.1
"""What remains, as a share of the run's own best window, counts as vanished below that."""
NOTHING = 1.0e-3
"""So little spread is none, whatever it was before."""
ALL = 0.99
"""Share of the rows that get one class, above which they all do."""
LATE = 0.5
"""Share of the steps after which one class is a sign: a run learns the classes' shares first, then a difference."""
SCRAP = 0.03
"""A network that gives every row one class at its end must be better than the prior by that share of its entropy."""
SKIPS = 5
"""So many steps in a row may be lost to fp16 overflows."""


class Seen(NamedTuple):
    """What one step of the optimiser showed."""

    gain: float
    """Sum over the rows of (plain cross entropy of the prior - that of the network), in nats."""
    spread: float
    """Standard deviation over the rows of the logit that differs most."""
    bottom: float
    """Norm of the gradient of the lowest layer that learns; 0 where there is none."""
    head: float
    """Norm of the gradient of everything above the backbone."""
    predicted: list[int]
    """Rows for which each class was the likeliest."""
    scale: float
    """The fp16 scaler's, after the step."""
    skipped: bool


def seen(
    logits: np.ndarray, labels: np.ndarray, prior: np.ndarray, norms: list[float], scale: float, skipped: bool
) -> Seen:
    """Returns what the step's logits (rows, classes), labels (rows,) and the classes' shares (classes,) show.

    `norms` are those of the gradients of the lowest layer that learns and of everything above the backbone.
    """
    values = logits.astype(np.float64)
    peak = values.max(axis=1, keepdims=True)
    log_p = values - peak - np.log(np.exp(values - peak).sum(axis=1, keepdims=True))
    gain = log_p[np.arange(len(labels)), labels] - np.log(prior[labels])
    counts = np.bincount(values.argmax(axis=1), minlength=len(prior))
    spread = float(values.std(axis=0).max())
    bottom, head = norms
    return Seen(float(gain.sum()), spread, bottom, head, counts.tolist(), scale, skipped)


def alarm(steps: list[Seen], total: int) -> str | None:
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
    if width > done or _gain(window) >= FLAT:
        return None
    flat = f"after {done} of {total} steps the loss is {_against(_gain(window))} the classes' shares alone, and "
    spreads = [each.spread for each in steps]
    if _remaining(width, spreads) < SPREAD or np.median(spreads[-width:]) < NOTHING:
        return flat + "the logits no longer differ from row to row"
    if _remaining(width, [each.bottom / each.head if each.head else 0.0 for each in steps]) < GRADIENT:
        return flat + "the gradients no longer reach the lowest layer"
    if done >= LATE * total and _one_class(window):
        return flat + "every row gets the same class"
    return None


def fruitless(steps: list[Seen], entropy: float, inner: tuple[float, float] | None) -> str | None:
    """Returns why a run that came to its end has learned nothing; None where it has.

    `entropy` is the prior's; `inner` the kept weights' plain cross entropy on the inner slice, and the prior's there.
    """
    window = steps[-_width(steps, 2 * WINDOW * len(steps)) :]
    gain = _gain(window)
    if gain < FLAT:
        return f"at its end the loss is {_against(gain)} the classes' shares alone"
    if gain < SCRAP * entropy and _one_class(window):
        return f"at its end every row gets the same class, and the loss is {_against(gain)} the classes' shares alone"
    if inner is not None and inner[0] > inner[1] - FLAT / 2:
        return f"on the inner slice it is no better than the classes' shares ({inner[0]:.3f} against {inner[1]:.3f})"
    return None


def _width(steps: list[Seen], wanted: float) -> int:
    """Steps in a window: as many as wanted, three at least, and enough for LEAST rows."""
    return max(3, int(wanted), -(-LEAST // max(1, sum(steps[0].predicted))))


def _gain(window: list[Seen]) -> float:
    rows = sum(sum(each.predicted) for each in window)
    return sum(each.gain for each in window) / max(rows, 1)


def _against(gain: float) -> str:
    return f"{abs(gain):.3f} {'better' if gain > 0 else 'worse'} than"


def _one_class(window: list[Seen]) -> bool:
    counts = np.sum([each.predicted for each in window], axis=0)
    return bool(counts.max() > ALL * counts.sum())


def _remaining(width: int, values: list[float]) -> float:
    """Returns the median of the last window as a share of the best window's; 1 where nothing was ever there.

    Windows of the run's first steps are shorter: a run can lose everything within its first few.
    """
    ends = [*range(3, width, 2), *range(width, len(values) + 1, max(1, width // 2))]
    best = max((float(np.median(values[max(0, end - width) : end])) for end in ends), default=0.0)
    return float(np.median(values[-width:])) / best if best else 1.0
