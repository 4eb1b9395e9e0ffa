"""Statistics and drawings of the report: correlation of members, calibration, and small inline SVGs.

The drawings have no ids, no colours and no fonts of their own: the page's style sheet colours their classes, so they
follow its light, dark and printed form. Lengths along a strip are percentages, so a strip fills any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.ensemble.logits import to_logits
from pipeline.ledger.ledger import clock

MOST_BINS = 10
ROWS_PER_BIN = 30
LIMITS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Ends of a calibration plot's axes; the smallest that holds every dot is taken, so a rare class is not a speck."""


def finite(value: float | None) -> float | None:
    """Returns the value as a float; None where it is None, NaN or infinite."""
    return None if value is None or not math.isfinite(value) else float(value)


def score_text(value: float | None, digits: int = 4) -> str:
    """Returns a score with 4 decimals, or a number with `digits` of them; a dash for what is not known."""
    value = finite(value)
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def count_text(value: int | None) -> str:
    """Returns a number of rows or runs, with a comma at every thousand."""
    return "–" if value is None else f"{value:,}"


def share_text(value: float | None) -> str:
    """Returns a share of 1 in percent with one decimal."""
    value = finite(value)
    return "–" if value is None else "<0.1%" if 0 < value < 0.0005 else f"{score_text(100.0 * value, 1)}%"


def tiny_text(value: float | None) -> str:
    """Returns a difference of probabilities, in powers of ten."""
    value = finite(value)
    return "–" if value is None else "0" if value == 0 else f"{value:.1e}".replace("-", "−")


def plain_text(value: Any) -> str:
    """Returns a value of any kind: floats with 4 significant digits, a dash for None, lists joined."""
    if isinstance(value, list | tuple):
        return ", ".join(plain_text(item) for item in value)
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def time_text(value: float | None) -> str:
    """Returns seconds as `0.42 s`, `8.1 s`, `42 s`, `12 min 05 s` or `2 h 07 min`."""
    value = finite(value)
    if value is None:
        return "–"
    return clock(value) if value >= 9.95 else f"{value:.1f} s" if value >= 0.995 else f"{value:.2f} s"


def correlations(members: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns Pearson correlations of members' centred log-probabilities, and the number of rows that each is over.

    members: (rows, classes) probabilities each, NaN where a row is not covered. Logs are centred per row (a softmax
    ignores that constant) and per class (or two members would look alike for knowing the same class shares). Both
    results are (members, members), over the rows that both cover; a correlation is NaN where one is constant or fewer
    than two rows are shared.
    """
    centred = [to_logits(one) for one in members]
    covered = [np.isfinite(one).all(axis=1) for one in centred]
    result = np.full((len(centred), len(centred)), np.nan)
    shared = np.zeros(result.shape, dtype=np.int64)
    for i in range(len(centred)):
        for j in range(i, len(centred)):
            both = covered[i] & covered[j]
            shared[i, j] = shared[j, i] = both.sum()
            if both.sum() < 2:
                continue
            first, second = (part - part.mean(axis=0) for part in (centred[i][both], centred[j][both]))
            scale = math.sqrt((first**2).sum() * (second**2).sum())
            if scale > 1.0e-12:
                result[i, j] = result[j, i] = np.clip((first * second).sum() / scale, -1.0, 1.0)
    return result, shared


@dataclass(frozen=True)
class Bin:
    """Rows of similar predicted probability."""

    rows: int
    predicted: float
    """Their mean predicted probability."""
    observed: float
    """Share of them that are of the class."""

    @property
    def chance(self) -> tuple[float, float]:
        """The range of `observed` in 95 of 100 cases if predictions are right (Bröcker and Smith 2007, normal form)."""
        reach = 1.96 * math.sqrt(self.predicted * (1.0 - self.predicted) / self.rows)
        return max(self.predicted - reach, 0.0), min(self.predicted + reach, 1.0)


def reliability(hit: np.ndarray, probability: np.ndarray, bins: int | None = None) -> list[Bin]:
    """Returns observed against predicted share of one class, in bins of equal count.

    hit (rows,) 0 or 1, probability (rows,) with NaN for rows to leave out. By default up to 10 bins of 30 rows or more.
    """
    covered = np.isfinite(probability)
    hit, probability = np.asarray(hit, dtype=np.float64)[covered], probability[covered]
    if not len(hit):
        return []
    bins = bins or min(max(len(hit) // ROWS_PER_BIN, 1), MOST_BINS)
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [Bin(len(part), float(probability[part].mean()), float(hit[part].mean())) for part in parts]


def calibration_error(bins: list[Bin]) -> float | None:
    """Returns the expected calibration error: mean distance of observed from predicted share, weighted by rows."""
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.observed - one.predicted) for one in bins) / rows if rows else None


@dataclass(frozen=True)
class Scale:
    """A horizontal axis: `left` and `right` are the scores at its ends; the better score is always on the right."""

    left: float
    right: float

    def percent(self, value: float) -> float:
        """Returns the position of a score in percent of the width; scores beyond an end stay at that end."""
        if self.left == self.right:
            return 50.0
        return min(max(0.0, 100.0 * (value - self.left) / (self.right - self.left)), 100.0)


def ladder_scale(prior: float, scores: list[float], greater_is_better: bool) -> Scale:
    """Returns an axis from prior to best score; scores worse than the prior get at most a third of the width."""
    sign = 1.0 if greater_is_better else -1.0
    gains = [sign * (score - prior) for score in scores] + [0.0]
    high, low = max(gains), min(gains)
    if high > 0:
        low = max(low, -0.5 * high)
    return Scale(prior + sign * low * 1.02, prior + sign * high * 1.03)


def ladder(
    rungs: list[tuple[str, str, float | None]], bayes: float | None, error: float | None, greater_is_better: bool
) -> list[dict[str, Any]]:
    """Returns the ladder of scores: a bar per rung (kind, name, score) from the first rung's score, the prior.

    The rung of kind `chosen` gets its standard error. The ladder is empty where the prior is not known.
    """
    prior = rungs[0][2]
    if prior is None:
        return []
    sign = 1.0 if greater_is_better else -1.0
    scale = ladder_scale(prior, [score for score in (*(r[2] for r in rungs), bayes) if score is not None], sign > 0)
    start, rows = scale.percent(prior), []
    upright = Markup('<line class="{0}" x1="{1:.2f}%" x2="{1:.2f}%" y1="0" y2="100%"/>')
    for kind, name, score in rungs:
        parts = [upright.format("prior", start)]
        if score is not None and kind not in ("prior", "bayes"):
            end = scale.percent(score)
            bar = Markup('<rect class="bar {}{}" x="{:.2f}%" width="{:.2f}%" y="24%" height="52%"/>')
            parts.append(bar.format(kind, " worse" if end < start else "", min(start, end), abs(end - start)))
            if end == 0.0 and start > 0.0:
                parts.append(Markup('<line class="cut" x1="4%" x2="5%" y1="90%" y2="10%"/>'))
        if score is not None and error is not None and kind == "chosen":
            ends = scale.percent(score - error), scale.percent(score + error)
            parts.append(Markup('<line class="error" x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%"/>').format(*ends))
        if bayes is not None:
            parts.append(upright.format("bayes", scale.percent(bayes)))
        gain = None if score is None or kind == "prior" else sign * (score - prior)
        rows.append({"kind": kind, "name": name, "score": score, "gain": gain, "strip": _strip(parts, "rung")})
    return rows


def _strip(parts: Iterable[Markup], kind: str) -> Markup:
    return Markup('<svg class="{}" aria-hidden="true">{}</svg>').format(kind, Markup("").join(parts))


def fold_strip(scale: Scale, folds: dict[int, float], score: float | None) -> Markup:
    """Draws a dot per fold (its number and score on hover) and a tick at the member's own score."""
    parts = [Markup('<line class="axis" x1="0" x2="100%" y1="50%" y2="50%"/>')]
    if score is not None:
        x = scale.percent(score)
        parts.append(Markup('<line class="mean" x1="{0:.2f}%" x2="{0:.2f}%" y1="15%" y2="85%"/>').format(x))
    dot = Markup('<circle cx="{:.2f}%" cy="50%" r="3.5"><title>fold {}: {:.4f}</title></circle>')
    parts += [dot.format(scale.percent(value), fold, value) for fold, value in folds.items()]
    return _strip(parts, "folds")


def share_strip(share: float, kind: str = "plain") -> Markup:
    """Draws a bar over `share` of the width (0 to 1); what is more than nothing stays visible."""
    width = 0.0 if share <= 0 else min(max(100.0 * share, 0.4), 100.0)
    return _strip([Markup('<rect class="bar {}" width="{:.2f}%" height="100%"/>').format(kind, width)], "share")


def reliability_plot(name: str, stack: list[Bin], member: list[Bin]) -> Markup:
    """Draws the calibration plot of one class: stack with dots, best member faint, what chance allows as grey bars."""
    edge = max([value for one in [*stack, *member] for value in (one.predicted, one.observed)], default=1.0)
    limit = next(end for end in LIMITS if edge <= end + 1.0e-9)
    left, top, size = 40.0, 8.0, 250.0

    def x(value: float) -> float:
        return left + size * value / limit

    def y(value: float) -> float:
        return top + size * (1.0 - min(value, limit) / limit)

    parts = [Markup('<rect class="frame" x="{0}" y="{1}" width="{2}" height="{2}"/>').format(left, top, size)]
    for value in (0.0, limit / 2, limit):
        text, anchor = f"{100 * value:.0f}%", "end" if value == limit else "middle"
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(x(value), 276, anchor, text))
        parts.append(Markup('<text x="34" y="{:.1f}" text-anchor="end">{}</text>').format(y(value) + 4, text))
        grid = Markup('<path class="grid" d="M{0:.1f} {2}v{3}M{4} {1:.1f}h{3}"/>')
        parts.append(grid.format(x(value), y(value), top, size, left))
    parts.append(Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(left, top + size, left + size, top))
    for one in stack:
        low, high = one.chance
        parts.append(
            Markup('<path class="chance" d="M{0:.1f} {1:.1f}V{2:.1f}"/>').format(x(one.predicted), y(low), y(high))
        )
    for kind, bins in (("member", member), ("stack", stack)):
        points = " ".join(f"{x(one.predicted):.1f},{y(one.observed):.1f}" for one in bins)
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(kind, points))
    for one in stack:
        dot = Markup('<circle class="stack" cx="{:.1f}" cy="{:.1f}" r="4"><title>{} rows: {}</title></circle>')
        shares = f"predicted {100 * one.predicted:.1f}%, observed {100 * one.observed:.1f}%"
        parts.append(dot.format(x(one.predicted), y(one.observed), one.rows, shares))
    label = f"Calibration of {name}: observed against predicted share"
    frame = Markup('<svg class="reliability" viewBox="0 0 298 284" role="img" aria-label="{}">{}</svg>')
    return frame.format(label, Markup("").join(parts))
