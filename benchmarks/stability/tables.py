"""A study's results for people: tables in Markdown, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import escape

from benchmarks.stability.strategies import BEST
from pipeline.files import write_text
from pipeline.report.stability_section import panels

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#666}.title{font-weight:600}.grid{stroke:#999;stroke-opacity:.3}"
    ".seed{fill:#2b6cb0;fill-opacity:.55}.failed{fill:#c53030;fill-opacity:.8}.centre{stroke:#666;stroke-width:2}"
)
GAP = 26
COLUMNS = (
    "| strategy | runs | mean | SD (95 %) | min | median | max | failed | below chance | disagree | log loss | cost |"
)
TESTS = "| strategy | change of the mean | p | SD against {0}'s | p | failed, {0}'s | p | change of log loss |"


def tables(found: dict[str, Any]) -> str:
    """One pair of tables for each data set and rate."""
    parts = []
    for data, rate in dict.fromkeys((each["data"], each["rate"]) for each in found["cells"]):
        cells = [each for each in found["cells"] if (each["data"], each["rate"]) == (data, rate)]
        parts += [f"### {data}, rate {found['rates'][rate]:.0e}", "", COLUMNS, "|---|" + "---|" * 11]
        parts += [_scores(each) for each in cells]
        reference = next(name for name in ("plain", "ten epochs") if name in {each["strategy"] for each in cells})
        tested = [each for each in cells if each["strategy"] != reference]
        if tested:
            parts += ["", TESTS.format(reference), "|---|" + "---|" * 7, *(_tests(each, each) for each in tested)]
        rivals = [each for each in cells if "best" in each]
        if rivals:
            parts += ["", TESTS.format(BEST), "|---|" + "---|" * 7, *(_tests(each, each["best"]) for each in rivals)]
        parts.append("")
    for name, each in found.get("deni", {}).items():
        parts.append(
            f"DENI's {name} against ten runs averaged: mean {each['change']:+.3f} (p {each['mean']:.3f}), SD "
            f"{each['sd_ratio']:.2f} of theirs (p {each['spread']:.3f}), at {each['cost']:.2f} of the cost."
        )
    rejected = [
        f"{pool} {' / '.join(f'{share:.1%}' for share in shares.values())}" for pool, shares in found["null"].items()
    ]
    parts.append("Null check, rejected at 5 % (spread / mean / failures): " + "; ".join(rejected) + ".")
    return "\n".join(parts)


def draw(found: dict[str, Any], file: Path) -> None:
    """Writes all panels, one below the other, as one picture that needs no style sheet."""
    shapes, height = [], 0.0
    for title, panel in panels(found):
        text = str(panel)  # a Markup would escape what it is given
        wide, tall = text.split('viewBox="0 0 ')[1].split('"')[0].split()
        shapes.append(f'<text class="title" x="10" y="{height + 17:.0f}">{escape(title)}</text>')
        place = f'<svg x="0" y="{height + GAP:.0f}" width="{wide}" height="{tall}" '
        shapes.append(text.replace("<svg ", place, 1))
        height += float(tall) + GAP
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 {height:.0f}"><style>{STYLE}</style>'
    write_text(file, frame + "".join(shapes) + "</svg>\n")


def _scores(each: dict[str, Any]) -> str:
    low, high = each["sd_interval"]
    failed, apart = each["failed"], each["disagreement"]
    return (
        f"| {each['strategy']} | {each['runs']} | {each['mean']:.3f} | {each['sd']:.3f} ({low:.3f}–{high:.3f}) | "
        f"{each['min']:.3f} | {each['median']:.3f} | {each['max']:.3f} | {failed['majority']} | {failed['chance']} | "
        f"{'–' if apart is None else f'{apart:.2f}'} | {each['log_loss']:.3f} | {each['cost']:.2f} |"
    )


def _tests(each: dict[str, Any], tests: dict[str, Any]) -> str:
    """`tests` of the strategy `each`: its own, or those against another rival."""
    spread = f"{tests['sd_ratio']['ratio']:.2f} ({tests['sd_ratio']['low']:.2f}–{tests['sd_ratio']['high']:.2f})"
    if "p" not in tests:  # averages of several seeds have no partner of the same seed
        return f"| {each['strategy']} | – | – | {spread} | – | – | – | – |"
    holm = tests["holm"]
    return (
        f"| {each['strategy']} | {tests['change']:+.3f} | {holm['mean']:.3f} | {spread} | {holm['spread']:.3f} | "
        f"{each['failed']['majority']}, {tests['plain_failed']} | {holm['failures']:.3f} | "
        f"{tests['log_loss_change']:+.3f} |"
    )
