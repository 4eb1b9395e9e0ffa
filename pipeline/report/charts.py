"""Statistics and drawings of the report: correlation of members, calibration, and small inline SVGs.

The drawings have no ids, no colours and no fonts of their own: the page's style sheet colours their classes, so they
follow its light, dark and printed form. Lengths along a strip are percentages, so a strip fills any width. Text goes in
through Markup.format, which escapes it; f-strings hold numbers and names of our own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.competitions.family import Family
from pipeline.ledger.ledger import clock

MOST_BINS = 10
ROWS_PER_BIN = 30


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


def correlations(members: Iterable[np.ndarray], family: Family) -> tuple[np.ndarray, np.ndarray]:
    """Returns Pearson correlations of members' natural parameters, and the number of rows that each is over.

    members: (rows, outputs) means each, NaN where a row is not covered. Logits are centred per row (a softmax ignores
    that constant) and all per output (or two members would look alike for knowing the same class shares). Both
    results are (members, members), over the rows that both cover; a correlation is NaN where one is constant or fewer
    than two rows are shared.
    """
    centred = [family.link(one) for one in members]
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
    gains = [sign * (score - prior) for score in (*(rung[2] for rung in rungs), bayes) if score is not None]
    high, low = max(gains), min(gains)
    if high > 0:
        low = max(low, -0.5 * high)  # scores worse than the prior get at most a third of the width
    scale = Scale(prior + sign * low * 1.02, prior + sign * high * 1.03)
    start, rows = scale.percent(prior), []
    for kind, name, score in rungs:
        parts = [upright("prior", start)]
        if score is not None and kind not in ("prior", "bayes"):
            end = scale.percent(score)
            bar = Markup('<rect class="bar {}{}" x="{:.2f}%" width="{:.2f}%" y="24%" height="52%"/>')
            parts.append(bar.format(kind, " worse" if end < start else "", min(start, end), abs(end - start)))
            if end == 0.0 and start > 0.0:
                parts.append(Markup('<line class="cut" x1="4%" x2="5%" y1="90%" y2="10%"/>'))
        if score is not None and error is not None and kind == "chosen":
            left, right = scale.percent(score - error), scale.percent(score + error)
            parts.append(Markup(f'<line class="error" x1="{left:.2f}%" x2="{right:.2f}%" y1="50%" y2="50%"/>'))
        if bayes is not None:
            parts.append(upright("bayes", scale.percent(bayes)))
        gain = None if score is None or kind == "prior" else sign * (score - prior)
        rows.append({"kind": kind, "name": name, "score": score, "gain": gain, "strip": strip("rung", parts)})
    return rows


def upright(kind: str, x: float) -> Markup:
    """Draws a line across a strip, at `x` percent of its width."""
    top, bottom = ("15%", "85%") if kind == "mean" else ("0", "100%")
    return Markup(f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{top}" y2="{bottom}"/>')


def strip(kind: str, parts: Iterable[Markup]) -> Markup:
    """Returns a drawing for a table's cell: it is low, and as wide as there is room."""
    return Markup('<svg class="{}" aria-hidden="true">{}</svg>').format(kind, Markup("").join(parts))


def plot(kind: str, width: float, height: float, label: str, parts: Iterable[Markup]) -> Markup:
    """Returns a drawing with axes, in units of its own; `label` is read out in its place."""
    frame = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(kind, width, height, label, Markup("").join(parts))


def fold_strip(scale: Scale, folds: dict[int, float], score: float | None) -> Markup:
    """Draws a dot per fold (its number and score on hover) and a tick at the member's own score."""
    parts = [Markup('<line class="axis" x1="0" x2="100%" y1="50%" y2="50%"/>')]
    if score is not None:
        parts.append(upright("mean", scale.percent(score)))
    dot = Markup('<circle cx="{:.2f}%" cy="50%" r="3.5"><title>fold {}: {:.4f}</title></circle>')
    parts += [dot.format(scale.percent(value), fold, value) for fold, value in folds.items()]
    return strip("folds", parts)


def share_strip(share: float) -> Markup:
    """Draws a bar over `share` of the width (0 to 1); what is more than nothing stays visible."""
    width = 0.0 if share <= 0 else min(max(100.0 * share, 0.4), 100.0)
    return strip("share", [Markup(f'<rect class="bar plain" width="{width:.2f}%" height="100%"/>')])


def reliability_plot(name: str, stack: list[Bin], member: list[Bin]) -> Markup:
    """Draws the calibration plot of one class: stack with dots, best member faint, what chance allows as grey bars."""
    edge = max([value for one in [*stack, *member] for value in (one.predicted, one.observed)], default=1.0)
    # The axes end at the smallest of these that holds every dot, so that a rare class is not a speck.
    limit = next(end for end in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if edge <= end + 1.0e-9)
    left, top, size = 40.0, 8.0, 250.0

    def x(value: float) -> float:
        return left + size * value / limit

    def y(value: float) -> float:
        return top + size * (1.0 - min(value, limit) / limit)

    parts = [Markup(f'<rect class="frame" x="{left}" y="{top}" width="{size}" height="{size}"/>')]
    for value, anchor in ((0.0, "middle"), (limit / 2, "middle"), (limit, "end")):
        parts.append(Markup(f'<text x="{x(value):.1f}" y="276" text-anchor="{anchor}">{100 * value:.0f}%</text>'))
        parts.append(Markup(f'<text x="34" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f}%</text>'))
        parts.append(Markup(f'<path class="grid" d="M{x(value):.1f} {top}v{size}M{left} {y(value):.1f}h{size}"/>'))
    parts.append(Markup(f'<path class="diagonal" d="M{left} {top + size}L{left + size} {top}"/>'))
    for one in stack:
        low, high = one.chance
        parts.append(Markup(f'<path class="chance" d="M{x(one.predicted):.1f} {y(low):.1f}V{y(high):.1f}"/>'))
    for kind, bins in (("member", member), ("stack", stack)):
        points = " ".join(f"{x(one.predicted):.1f},{y(one.observed):.1f}" for one in bins)
        parts.append(Markup(f'<polyline class="{kind}" points="{points}"/>'))
    for one in stack:
        told = f"{one.rows} rows: predicted {100 * one.predicted:.1f}%, observed {100 * one.observed:.1f}%"
        place = f'cx="{x(one.predicted):.1f}" cy="{y(one.observed):.1f}"'
        parts.append(Markup(f'<circle class="stack" {place} r="4"><title>{told}</title></circle>'))
    return plot("reliability", 298, 284, f"Calibration of {name}: observed against predicted share", parts)
