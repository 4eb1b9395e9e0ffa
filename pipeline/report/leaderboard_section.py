"""The page's section on submissions: the table of `make compare`, and CV against the public leaderboard as dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pipeline.ledger.agreement import Agreement, agreement, agreement_lines
from pipeline.ledger.chosen import Selection
from pipeline.ledger.ledger import Entry
from pipeline.report.charts import plot

LEFT, TOP, SIZE = 58.0, 10.0, 250.0


def leaderboard(entries: Sequence[Entry], cv: float | None, choice: Selection | None = None) -> dict[str, Any] | None:
    """Returns what the section shows; None where nothing was ever scored. `cv` is the present level-2 nested score."""
    if not entries:
        return None
    found = agreement(list(entries), cv)
    dots = [one for one in entries if one.cv is not None and one.public is not None]
    known = {one.submission: one.public for one in choice.candidates} if choice else {}
    return {
        "entries": entries,
        "lines": agreement_lines(found),
        "plot": scatter(dots, found) if dots else None,
        "choice": choice,
        "outdated": any(known.get(one.submission, one.public) != one.public for one in entries)
        or max(one.submission for one in entries) > max(known, default=0),
    }


def scatter(entries: Sequence[Entry], found: Agreement) -> Markup:
    """Draws a dot for each scored submission, CV across and public score up, on axes of the same length.

    The dashed line is where a gain in CV is the same gain on the leaderboard. A grey bar stands where the next score is
    expected for the present CV.
    """
    points = [(one.submission, one.cv or 0.0, one.public or 0.0) for one in entries]
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    if found.interval and found.cv is not None:  # a bar that is longer than the frame ends at its edges
        xs, ys = [*xs, found.cv], [*ys, sum(found.interval) / 2]
    span = 1.25 * max(max(xs) - min(xs), max(ys) - min(ys)) or 0.01
    left, low = (max(xs) + min(xs) - span) / 2, (max(ys) + min(ys) - span) / 2

    def across(value: float) -> float:
        return LEFT + SIZE * (value - left) / span

    def up(value: float) -> float:
        return TOP + SIZE * (1.0 - min(max((value - low) / span, 0.0), 1.0))

    parts = [Markup(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{SIZE}" height="{SIZE}"/>')]
    for share in (0.1, 0.5, 0.9):
        x, y = left + share * span, low + share * span
        parts.append(Markup(f'<text x="{across(x):.1f}" y="278" text-anchor="middle">{x:.4f}</text>'))
        parts.append(Markup(f'<text x="52" y="{up(y) + 4:.1f}" text-anchor="end">{y:.4f}</text>'))
        parts.append(Markup(f'<path class="grid" d="M{across(x):.1f} {TOP}v{SIZE}M{LEFT} {up(y):.1f}h{SIZE}"/>'))
    gap = sum(y - x for _, x, y in points) / len(points)
    ends = [x for x in (left, left + span, low - gap, low + span - gap) if left <= x <= left + span]
    ends = [x for x in ends if low - 1e-12 <= x + gap <= low + span + 1e-12]
    if len(ends) > 1:
        x1, x2 = min(ends), max(ends)
        line = f"M{across(x1):.1f} {up(x1 + gap):.1f}L{across(x2):.1f} {up(x2 + gap):.1f}"
        parts.append(Markup(f'<path class="diagonal" d="{line}"/>'))
    if found.interval and found.cv is not None:
        worst, best = found.interval
        bar, told = f"M{across(found.cv):.1f} {up(worst):.1f}V{up(best):.1f}", f"{worst:.5f} to {best:.5f}"
        parts.append(Markup(f'<path class="chance" d="{bar}"><title>expected next: {told}</title></path>'))
    for number, x, y in points:
        told = f"sub-{number}: CV {x:.5f}, public LB {y:.5f}"
        parts.append(Markup(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="4"><title>{told}</title></circle>'))
        parts.append(Markup(f'<text x="{across(x) + 7:.1f}" y="{up(y) - 6:.1f}">{number}</text>'))
    return plot("reliability", 318, 286, "Public leaderboard score against CV, one dot per submission", parts)
