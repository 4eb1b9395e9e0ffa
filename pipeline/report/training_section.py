"""The page's section on the networks' training: learning curves, truncation, pretraining, and what went wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from markupsafe import Markup

from pipeline.competitions.family import Family
from pipeline.report.charts import finite, plot
from pipeline.report.evidence import Evidence
from pipeline.report.stability_section import panels, ticks

LEFT, TOP, WIDTH, HEIGHT = 46.0, 8.0, 366.0, 190.0
MOST_POINTS = 50
"""A line has that many at most, each the mean of its stretch: steps are noisy, and folds shall not hide each other."""
HIGHEST = 2.0
"""A curve's axis ends at that many times the prior's entropy: a first step far above it would flatten all others."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One run's learning curve."""

    name: str
    points: Points
    """(steps, loss)"""
    inner: Points
    """(steps, score on the inner slice)"""
    kept: tuple[float, float] | None
    """(step, loss or score) of the weights that were kept."""
    collapsed: bool


def training(evidence: Evidence) -> dict[str, Any] | None:
    """Returns curves and runs by member, and the backbones' pretraining; None where no network was trained."""
    if not (evidence.receipts or evidence.pretraining):
        return None
    level = prior_loss(evidence.cv.get("classes") or {}, evidence.competition.family)
    plots = [
        (member, curve_plot(f"Learning curves of {member}", [_line(each) for each in folds], level))
        for member, folds in _by_member(evidence)
    ]
    backbones = []
    for name, found in evidence.pretraining.items():
        line = Line("pretraining", thinned(_finite(found.get("curve"))), [], None, False)
        backbones.append((name, found, curve_plot(f"Pretraining of {name}", [line], None)))
    every = [each["training"] for each in evidence.receipts]
    return {
        "plots": plots,
        "runs": [(each["member"], each["fold"], each["training"], _line(each)) for each in evidence.receipts],
        "fields": list(dict.fromkeys(name for each in every for name in each.get("truncation") or {})),
        "entropy": level,
        "inner": any(each.get("inner") for each in every),
        "backbones": backbones,
        "failures": failures(evidence),
        "stability": evidence.stability and {"plots": panels(evidence.stability), "about": evidence.stability},
        "stopped": [
            (member, line) for member, scores in evidence.cv["members"].items() for line in scores.get("stopped") or []
        ],
    }


def failures(evidence: Evidence) -> list[str]:
    """Returns a line for each member with collapsed fold models, and for each that was left out."""
    lines, folds = [], {member: [e["fold"] for e in each if _collapsed(e)] for member, each in _by_member(evidence)}
    for member in dict.fromkeys([*evidence.cv["members"], *folds]):
        numbers = folds.get(member, [])
        counted = evidence.cv["members"].get(member, {}).get("collapsed") or 0
        if count := max(counted, len(numbers)):
            which = f" (fold {', '.join(map(str, numbers))})" if numbers else ""
            models = "1 fold model" if count == 1 else f"{count} fold models"
            lines.append(f'member "{member}": {models} COLLAPSED{which}, no better than the prior')
    dropped = evidence.cv.get("dropped") or {}
    return lines + [f'member "{name}" was LEFT OUT of stack and package: {why}' for name, why in dropped.items()]


def prior_loss(prior: dict[str, float], family: Family) -> float | None:
    """Returns the training loss of the constant predictor `prior`, in nats; None where it is not known."""
    if not prior:
        return None
    # Numbers are standardised, and half their variance is left to learn.
    return finite(family.uncertainty(np.array([list(prior.values())]))[0]) if family.bounded else 0.5


def _by_member(evidence: Evidence) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(name, list(each)) for name, each in groupby(evidence.receipts, key=lambda each: each["member"])]


def _collapsed(receipt: dict[str, Any]) -> bool:
    return bool(receipt["training"].get("collapsed"))


def _line(receipt: dict[str, Any]) -> Line:
    record = receipt["training"]
    curve, inner = _finite(record.get("curve")), _finite(record.get("inner"))
    points = thinned(curve)
    scores, best = dict(inner), record.get("best")
    kept = (best, scores[best]) if best in scores else points[-1] if points and best is None else None
    return Line(f"fold {receipt['fold']}", points, inner, kept, _collapsed(receipt))


def _finite(pairs: list[list[float]] | None) -> Points:
    return [(step, value) for step, value in pairs or [] if finite(value) is not None]


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """Returns at most `most` points: each stands at the end of its stretch, with the mean of it."""
    width = max(1, math.ceil(len(points) / most))
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return [(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]


def curve_plot(label: str, lines: list[Line], level: float | None) -> Markup:
    """Draws loss against steps: a line per run, dots for inner scores, a ring at the kept step; `level` is dashed."""
    values = [value for line in lines for _, value in [*line.points, *line.inner]]
    if not values:
        return Markup("")
    top = max(values) if level is None else min(max(*values, level), HIGHEST * level)
    low = min(*values, top, top if level is None else level)
    room = 0.06 * (top - low) or 0.05
    low, top = low - room, top + room
    last = max(step for line in lines for step, _ in [*line.points, *line.inner])

    def x(step: float) -> float:
        return LEFT + WIDTH * step / last

    def y(value: float) -> float:
        return TOP + HEIGHT * min(max((top - value) / (top - low), 0.0), 1.0)

    parts = [Markup(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/>')]
    heights = ticks(low, top)
    digits = max(0, math.ceil(-math.log10(heights[1] - heights[0]) - 1e-9))
    for value in heights:
        parts.append(Markup(f'<path class="grid" d="M{LEFT} {y(value):.1f}h{WIDTH}"/>'))
        parts.append(Markup(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>'))
    for step in (each for each in ticks(0, last) if each == int(each)):
        place = f'x="{x(step):.1f}" y="{TOP + HEIGHT + 17}"'
        anchor = "end" if x(step) > LEFT + WIDTH - 12 else "middle"
        parts.append(Markup(f'<text {place} text-anchor="{anchor}">{step:,.0f}</text>'))
    if level is not None:
        dashes = f'<path class="diagonal" d="M{LEFT} {y(level):.1f}h{WIDTH}"><title>prior: {level:.4f}</title></path>'
        parts.append(Markup(dashes))
    for line in lines:
        kind = "collapsed" if line.collapsed else "run"
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line.points)
        name = f"{line.name}, collapsed" if line.collapsed else line.name
        polyline = Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>')
        parts.append(polyline.format(kind, points, name))
    for line in lines:
        kind = "collapsed" if line.collapsed else "run"
        dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.2"><title>{}, step {}: {:.4f}</title></circle>')
        parts += [dot.format(kind, x(step), y(value), line.name, step, value) for step, value in line.inner]
        if line.kept:
            step, value = line.kept
            ring = Markup(
                '<circle class="kept" cx="{:.1f}" cy="{:.1f}" r="6"><title>{}: kept, step {}</title></circle>'
            )
            parts.append(ring.format(x(step), y(value), line.name, step))
    return plot("reliability curve", 420, 222, label, parts)
