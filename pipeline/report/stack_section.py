"""The page's sections on trust and on the stack's parts: leak checks, what members and sources add, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.competitions.task import Competition
from pipeline.report.charts import Scale, strip, upright
from pipeline.report.sources import Brought


def checks(cv: dict[str, Any], probe: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Returns the leak probe, each member's gap between holdout and own folds, its symmetry, and the stack's gains."""
    swaps = {row["member"]: row for row in found["swap"] or []}
    members = [{"name": name, "gap": row.get("gap"), "swap": swaps.get(name)} for name, row in cv["members"].items()]
    gains = cv["stack"].get("gains") or {}
    names = {"best_member": f"{cv['stack']['best_member']}, the best member", "equal_mean": "the members' equal mean"}
    parts = [gains.get(part) or {} for part in ("nested", "holdout")]
    against = [(label, [part.get(name) for part in parts]) for name, label in names.items()]
    return {"probe": probe, "members": members, "gains": against, "sides": bool(swaps)}


def marginal(found: dict[str, Any]) -> dict[str, Any]:
    """Returns per member two intervals on one scale: the loss without it, and the best member's gain by it."""
    rows = found["marginal"]
    intervals = [row[key] for row in rows for key in ("left_out", "added") if not (key == "added" and row["best"])]
    ends = [0.0, *(interval[end] for interval in intervals for end in ("low", "high"))]
    room = 0.03 * (max(ends) - min(ends))
    scale = Scale(min(ends) - room, max(ends) + room)
    strips = [{key: interval_strip(scale, row[key]) for key in ("left_out", "added")} for row in rows]
    return {"rows": list(zip(rows, strips, strict=True)), "stacker": found["stacker"]}


def sources(found: Sequence[Brought]) -> dict[str, Any] | None:
    """Returns what each source of rows from elsewhere brought, with an interval where measured; None without any."""
    if not found:
        return None
    measured = [each.gain for each in found if each.gain]
    ends = [0.0, *(gain[end] for gain in measured for end in ("low", "high"))]
    scale = Scale(min(ends), max(ends))
    return {"rows": [(each, interval_strip(scale, each.gain) if each.gain else None) for each in found]}


def interval_strip(scale: Scale, interval: Mapping[str, float]) -> Markup:
    """Draws an interval as a bar with a tick at its mean, and a line at zero."""
    low, mean, high = (scale.percent(interval[end]) for end in ("low", "mean", "high"))
    bar = Markup(f'<line class="reach" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>')
    return strip("folds", [upright("prior", scale.percent(0.0)), bar, upright("mean", mean)])


def slice_families(cv: dict[str, Any], found: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the slices of the rows by family; None where no family has two."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in found["slices"]:
        families.setdefault(row["family"], []).append(row)
    return {"families": families, "best": cv["stack"]["best_member"]} if families else None


def disagreement_rows(competition: Competition, found: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the rows on which the members differ most; None for a single member."""
    rows = found["disagreements"]
    if not rows or len(rows[0]["members"]) < 2:
        return None
    by_class = competition.outcome in ("classes", "choice")
    for row in rows:
        row["truth"] = None if by_class else ", ".join(f"{value:g}" for value in row["label"])
    return {"rows": rows, "classes": competition.outputs}
