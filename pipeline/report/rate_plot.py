"""Draws what `make rate` has found: the loss at each rate of the ladder, with its error, the prior and the choice."""

from __future__ import annotations

import math

from markupsafe import Markup

from pipeline.report.charts import plot
from pipeline.report.stability_section import ticks

LEFT, TOP, WIDTH, HEIGHT = 58.0, 12.0, 350.0, 180.0
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#666}.grid,.frame{stroke:#999;stroke-opacity:.3;fill:none}"
    ".prior{stroke:#666;stroke-dasharray:4 3}.run,.error{stroke:#2b6cb0;fill:none}circle.run{fill:#2b6cb0}"
    ".failed{fill:#c53030}.kept{fill:none;stroke:#2b6cb0}"
)


def rate_plot(label: str, points: list[tuple[float, float, float, bool]], prior: float, kept: float | None) -> Markup:
    """Returns a drawing that needs no style sheet: loss against the logarithm of the rate.

    points: (rate, mean loss, its standard error, whether the run failed) each, the loss in nats and infinite where
    there was none; `kept` is the rate that is suggested. What lies above the prior's loss by more than half of what the
    best has won stays at the upper edge.
    """
    losses = [loss for _, loss, _, _ in points if math.isfinite(loss)]
    low = min([*losses, prior])
    top = prior + 0.5 * max(prior - low, 0.02 * abs(prior) + 1.0e-9)
    low -= 0.1 * (top - low)
    first, last = (math.log10(each([rate for rate, *_ in points])) for each in (min, max))

    def x(rate: float) -> float:
        return LEFT + 16 + (WIDTH - 32) * (math.log10(rate) - first) / ((last - first) or 1.0)

    def y(loss: float) -> float:
        return TOP + HEIGHT * min(max((top - loss) / (top - low), 0.0), 1.0)

    parts = [Markup(f"<style>{STYLE}</style>")]
    parts.append(Markup(f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/>'))
    for value in ticks(low, top):
        parts.append(Markup(f'<path class="grid" d="M{LEFT} {y(value):.1f}h{WIDTH}"/>'))
        parts.append(Markup(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3f}</text>'))
    parts.append(
        Markup(f'<path class="prior" d="M{LEFT} {y(prior):.1f}h{WIDTH}"><title>prior {prior:.4f}</title></path>')
    )
    for rate, loss, error, failed in points:
        place = f'cx="{x(rate):.1f}" cy="{y(loss):.1f}"'
        parts.append(Markup(f'<text x="{x(rate):.1f}" y="{TOP + HEIGHT + 17}" text-anchor="middle">{rate:.1e}</text>'))
        if math.isfinite(loss):
            ends = f"M{x(rate):.1f} {y(loss - error):.1f}V{y(loss + error):.1f}"
            parts.append(Markup(f'<path class="error" d="{ends}"/>'))
        kind, told = ("failed", ", failed") if failed else ("run", "")
        parts.append(
            Markup(f'<circle class="{kind}" {place} r="4"><title>{rate:.1e}: {loss:.4f}{told}</title></circle>')
        )
        if rate == kept:
            parts.append(Markup(f'<circle class="kept" {place} r="8"><title>suggested</title></circle>'))
    drawn = plot("rates", LEFT + WIDTH + 12, TOP + HEIGHT + 28, label, parts)
    return Markup(str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
