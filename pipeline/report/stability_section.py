"""Draws runs of the same training with other seeds as dots: what Podium's own stability benchmark found.

python -m stages.report                     # the page shows the benchmark that came with this checkout
python -m benchmarks.stability --study guard --tables     # draws docs/stability.svg from the same results
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipeline.report.charts import plot

LEFT, WIDTH, ROW, TOP = 200.0, 310.0, 19.0, 8.0


@dataclass(frozen=True)
class Row:
    """One strategy: its score with each seed, and whether that run failed."""

    name: str
    values: list[float]
    failed: list[bool]


def panels(found: dict[str, Any]) -> list[tuple[str, Markup]]:
    """Returns title and drawing for each data set and rate of benchmarks/results/stability.json."""
    drawn = []
    for data, rate in dict.fromkeys((cell["data"], cell["rate"]) for cell in found["cells"]):
        cells = [cell for cell in found["cells"] if (cell["data"], cell["rate"]) == (data, rate)]
        rows = [Row(cell["strategy"], cell["f1"], cell["failed_runs"]) for cell in cells]
        title = f"{data}, {rate} rate ({found['rates'][rate]:.0e})"
        drawn.append((title, seeds_plot(f"Seeds: {title}", rows)))
    return drawn


def seeds_plot(label: str, rows: list[Row]) -> Markup:
    """Draws a line per strategy and a dot per seed, at its score; failed runs stand out, a tick marks the mean."""
    values = [value for row in rows for value in row.values]
    if not values:
        return Markup("")
    room = 0.05 * (max(values) - min(values)) or 0.05
    low, high = min(values) - room, max(values) + room
    bottom = TOP + ROW * len(rows)

    def x(value: float) -> float:
        return LEFT + WIDTH * (value - low) / (high - low)

    parts = []
    for value in ticks(low, high):
        parts.append(Markup(f'<path class="grid" d="M{x(value):.1f} {TOP}v{bottom - TOP}"/>'))
        parts.append(Markup(f'<text x="{x(value):.1f}" y="{bottom + 15}" text-anchor="middle">{value:.2f}</text>'))
    for number, row in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 10, y + 4, row.name))
        for value, failed in zip(row.values, row.failed, strict=True):
            kind, note = ("failed", ", failed") if failed else ("seed", "")
            dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3.4"><title>{}: {:.3f}{}</title></circle>')
            parts.append(dot.format(kind, x(value), y, row.name, value, note))
        mean = sum(row.values) / len(row.values)
        tick = Markup('<path class="centre" d="M{:.1f} {:.1f}v{}"><title>{}: mean {:.3f}</title></path>')
        parts.append(tick.format(x(mean), y - 7, 14, row.name, mean))
    return plot("seeds", LEFT + WIDTH + 10, round(bottom + 22), label, parts)


def ticks(low: float, high: float) -> list[float]:
    """Returns round numbers from `low` to `high`, three to seven of them."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * (1 - 1e-9))
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
