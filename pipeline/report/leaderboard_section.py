"""The page's section on submissions: the table of `make compare`, and CV against the public leaderboard as dots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pipeline.ledger.agreement import Agreement, agreement, agreement_lines
from pipeline.ledger.ledger import Entry

LEFT, TOP, SIZE = 58.0, 10.0, 250.0


def leaderboard(entries: Sequence[Entry], cv: float | None) -> dict[str, Any] | None:
    """Returns what the section shows; None where nothing was ever scored. `cv` is the present level-2 nested score."""
    if not entries:
        return None
    found = agreement(list(entries), cv)
    dots = [one for one in entries if one.cv is not None and one.public is not None]
    return {"entries": entries, "lines": agreement_lines(found), "plot": scatter(dots, found) if dots else None}


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

    parts = [Markup('<rect class="frame" x="{0}" y="{1}" width="{2}" height="{2}"/>').format(LEFT, TOP, SIZE)]
    for share in (0.1, 0.5, 0.9):
        x, y = left + share * span, low + share * span
        parts.append(Markup('<text x="{:.1f}" y="278" text-anchor="middle">{:.4f}</text>').format(across(x), x))
        parts.append(Markup('<text x="52" y="{:.1f}" text-anchor="end">{:.4f}</text>').format(up(y) + 4, y))
        grid = Markup('<path class="grid" d="M{0:.1f} {2}v{3}M{4} {1:.1f}h{3}"/>')
        parts.append(grid.format(across(x), up(y), TOP, SIZE, LEFT))
    gap = sum(y - x for _, x, y in points) / len(points)
    ends = [x for x in (left, left + span, low - gap, low + span - gap) if left <= x <= left + span]
    ends = [x for x in ends if low - 1e-12 <= x + gap <= low + span + 1e-12]
    if len(ends) > 1:
        (x1, x2) = min(ends), max(ends)
        line = Markup('<path class="diagonal" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>')
        parts.append(line.format(across(x1), up(x1 + gap), across(x2), up(x2 + gap)))
    if found.interval and found.cv is not None:
        bar = Markup(
            '<path class="chance" d="M{:.1f} {:.1f}V{:.1f}"><title>expected next: {:.5f} to {:.5f}</title></path>'
        )
        parts.append(bar.format(across(found.cv), up(found.interval[0]), up(found.interval[1]), *found.interval))
    for number, x, y in points:
        dot = Markup(
            '<circle cx="{:.1f}" cy="{:.1f}" r="4"><title>sub-{}: CV {:.5f}, public LB {:.5f}</title></circle>'
        )
        parts.append(dot.format(across(x), up(y), number, x, y))
        parts.append(Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(across(x) + 7, up(y) - 6, number))
    frame = Markup('<svg class="reliability" viewBox="0 0 318 286" role="img" aria-label="{}">{}</svg>')
    return frame.format("Public leaderboard score against CV, one dot per submission", Markup("").join(parts))
