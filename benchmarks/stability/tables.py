"""A study's results for people: tables in Markdown, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import escape

from benchmarks.result import markdown
from benchmarks.stability.strategies import BEST
from pipeline.files import write_text
from pipeline.report.stability_section import panels

STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#666}.title{font-weight:600}.grid{stroke:#999;stroke-opacity:.3}"
    ".seed{fill:#2b6cb0;fill-opacity:.55}.failed{fill:#c53030;fill-opacity:.8}.centre{stroke:#666;stroke-width:2}"
)
GAP = 26
SCORES = ["strategy", "runs", "mean", "SD (95 %)", "agree", "min", "median", "max", "failed", "below chance"]
SCORES += ["log loss", "cost"]


def page(study: str, found: dict[str, Any]) -> str:
    """Returns a study's tables as a page that says where its figures come from."""
    command = f"`python -m benchmarks.stability --study {study}`"
    told = f"{command}, {found['date']}, {found['machine']}.\ndocs/training.md says what is measured, and what follows."
    return f"# Stability over seeds: {study}\n\n{told}\n\n{tables(found)}\n"


def tables(found: dict[str, Any]) -> str:
    """Returns two or three tables for each data set and rate."""
    parts = []
    for data, rate in dict.fromkeys((each["data"], each["rate"]) for each in found["cells"]):
        cells = [each for each in found["cells"] if (each["data"], each["rate"]) == (data, rate)]
        parts += [f"### {data}, rate {found['rates'][rate]:.0e}", ""]
        parts.append(markdown(SCORES, [_scores(each) for each in cells]))
        reference = next(name for name in ("plain", "ten epochs") if name in {each["strategy"] for each in cells})
        tested = [each for each in cells if each["strategy"] != reference]
        if tested:
            parts += ["", _tests(reference, [(each, each) for each in tested])]
        rivals = [each for each in cells if "best" in each]
        if rivals:
            parts += ["", _tests(BEST, [(each, each["best"]) for each in rivals])]
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


def _scores(each: dict[str, Any]) -> list[str]:
    low, high = each["sd_interval"]
    failed, apart = each["failed"], each.get("disagreement")
    agree = "not measured" if apart is None else f"{1 - apart:.0%}"
    scores = [f"{each['mean']:.3f}", f"{each['sd']:.3f} ({low:.3f}–{high:.3f})", agree]
    scores += [f"{each[name]:.3f}" for name in ("min", "median", "max")]
    told = [f"{each['log_loss']:.3f}", f"{each['cost']:.2f}"]
    return [each["strategy"], str(each["runs"]), *scores, str(failed["majority"]), str(failed["chance"]), *told]


def _tests(rival: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """Returns a table of strategies, each with its tests against `rival`."""
    columns = ["strategy", "change of the mean", "p", f"SD against {rival}'s", "p", f"failed, {rival}'s", "p"]
    if told := any("log_loss_change" in tests for _, tests in pairs):  # stability.json is older than this column
        columns.append("change of log loss")
    rows = []
    for each, tests in pairs:
        spread = f"{tests['sd_ratio']['ratio']:.2f} ({tests['sd_ratio']['low']:.2f}–{tests['sd_ratio']['high']:.2f})"
        if "p" not in tests:  # averages of several seeds have no partner of the same seed
            rows.append([each["strategy"], "–", "–", spread, *["–"] * (len(columns) - 4)])
            continue
        holm = tests["holm"]
        row = [each["strategy"], f"{tests['change']:+.3f}", f"{holm['mean']:.3f}", spread, f"{holm['spread']:.3f}"]
        row += [f"{each['failed']['majority']}, {tests['plain_failed']}", f"{holm['failures']:.3f}"]
        rows.append([*row, f"{tests['log_loss_change']:+.3f}"] if told else row)
    return markdown(columns, rows)
