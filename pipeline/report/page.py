"""Renders what the other stages measured as one self-contained HTML file, the page people look at.

To add a section: write a function that takes the Evidence and returns the values that the page shows (None leaves the
section out), name it in SECTIONS, and give page.html a macro of the same name with its heading and its HTML.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report import charts, stack_section
from pipeline.report.charts import finite, score_text
from pipeline.report.evidence import Evidence, float_array
from pipeline.report.leaderboard_section import leaderboard
from pipeline.report.training_section import failures, training

PAGE = Path("reports/index.html")

STAGES = (
    *("demo", "prepare", "folds", "backbone", "start_pretrain", "pretrain", "extra", "start"),
    *("finetune", "teach", "refit", "probe", "oof", "stack", "diagnostics", "package", "rehearse"),
)

MEDALS = ("gold", "silver", "bronze")
MOST_PLOTS = 12
"""So many outputs get a plot of their calibration; with hundreds of classes nobody would look at the others."""


def render(evidence: Evidence) -> str:
    """Returns the whole page as HTML; the same evidence gives the same bytes."""
    values = {name: function(evidence) for name, function in SECTIONS.items()}
    shown = {name: value for name, value in values.items() if value is not None}
    return environment().get_template("page.html").render(head=head(evidence), sections=shown) + "\n"


def environment() -> Environment:
    """Returns what opens the templates beside this file."""
    folder = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {k: getattr(charts, f"{k}_text") for k in ("score", "count", "share", "tiny", "plain", "time")}
    return page


def headline(evidence: Evidence) -> str:
    """Returns the scores that matter most, in one line of plain text."""
    found = head(evidence)
    error = "" if found["error"] is None else f" ± {score_text(found['error'])}"
    parts = [f"{found['metric']} {score_text(found['score'])}{error} (level-2 nested, stacker {found['chosen']})"]
    parts += [f"{name} {score_text(found[name])}" for name in ("holdout", "prior", "bayes") if found[name] is not None]
    return ", ".join(parts)


def head(evidence: Evidence) -> dict[str, Any]:
    """Returns what the page's top shows: the contest, the stack's scores and the ladder of scores."""
    cv, stack = evidence.cv, evidence.cv["stack"]
    score, prior, bayes = finite(stack["score"]), finite(cv["prior"]), finite(cv.get("bayes"))
    members = {name: finite(member["score"]) for name, member in cv["members"].items()}
    warnings = [] if evidence.rehearsal["valid"] else ["The rehearsal's submission.csv is not valid: do not submit."]
    if evidence.probe["leak"]:
        leak = "The leak probe gains on shuffled labels: some labels reach their own predictions. Trust no score."
        warnings.append(leak)
    found = {
        "name": evidence.competition.name,
        "metric": evidence.competition.metric.replace("_", " "),
        "better": "higher" if evidence.metric.greater_is_better else "lower",
        "rows": evidence.rows,
        "cv": cv,
        "warnings": [*failures(evidence), *warnings, *(cv.get("warnings") or [])],
        "chosen": stack["chosen"],
        "score": score,
        "error": finite(stack.get("standard_error")),
        "holdout": finite(stack.get("holdout")),
        "prior": prior,
        "bayes": bayes,
        "best_score": members.get(stack["best_member"]),
        "medal": medal(evidence, score),
        "shares": evidence.competition.family.bounded,
    }
    rungs = [("prior", "constant answer (prior)", prior)]
    others = {name: finite(value) for name, value in stack["candidates"].items() if name != stack["chosen"]}
    for kind, scores in (("member", members), ("candidate", others)):
        rising = sorted(scores.items(), key=lambda item: _worst_first(evidence, item[1]))
        rungs += [(kind, name, value) for name, value in rising]
    rungs.append(("chosen", stack["chosen"], score))
    rungs += [("bayes", "best reachable (Bayes)", bayes)] if bayes is not None else []
    ladder = charts.ladder(rungs, bayes, found["error"], evidence.metric.greater_is_better)
    gains = {rung["kind"]: rung["gain"] for rung in ladder}
    return found | {"ladder": ladder, "gain": gains.get("chosen"), "possible": gains.get("bayes") or 0.0}


def medal(evidence: Evidence, score: float | None) -> str | None:
    """Returns the best medal that a private score like `score` would have won; None where no threshold is known."""
    known = evidence.competition.medals
    if not known or score is None:
        return None
    better = evidence.metric.better
    return next((name for name in MEDALS if name in known and not better(known[name], score)), "no medal")


def _worst_first(evidence: Evidence, score: float | None) -> float:
    """Returns a key that sorts scores from worst to best, unknown ones first."""
    return -math.inf if score is None else score if evidence.metric.greater_is_better else -score


def members(evidence: Evidence) -> dict[str, Any]:
    """Returns the members from best to worst, fold scores on one scale whose left end is for what misses the prior."""
    cv, prior = evidence.cv, finite(evidence.cv["prior"])
    rows = [dict(found, name=name, folds=_folds(evidence, name)) for name, found in cv["members"].items()]
    rows.sort(key=lambda row: _worst_first(evidence, finite(row["score"])), reverse=True)
    every = [value for row in rows for value in (*row["folds"].values(), finite(row["score"])) if value is not None]
    every.sort(key=lambda value: _worst_first(evidence, value))
    shown = [value for value in every if prior is not None and evidence.metric.better(value, prior)] or every or [0.0]
    scale = charts.Scale(shown[0], shown[-1])
    strips = [charts.fold_strip(scale, row["folds"], finite(row["score"])) for row in rows]
    folds = sorted({fold for row in rows for fold in row["folds"]})
    return {"rows": list(zip(rows, strips, strict=True)), "folds": folds, "best": cv["stack"]["best_member"]}


def _folds(evidence: Evidence, member: str) -> dict[int, float]:
    """Returns fold number -> score; a list shorter than the number of folds holds the trained ones in their order."""
    scores = evidence.cv["members"][member]["fold_scores"]
    covered = np.isfinite(evidence.probabilities(member)).all(axis=1)
    numbers = sorted(set(evidence.oof["fold"].to_numpy()[covered].tolist()))
    pairs = zip(numbers if len(numbers) == len(scores) else range(len(scores)), scores, strict=True)
    return {fold: score for fold, score in pairs if finite(score) is not None}


def alike(evidence: Evidence) -> dict[str, Any] | None:
    """Returns the members' correlations, the rows behind each, and a tint from 0 (at `floor`) to 1 (if identical)."""
    names = list(evidence.cv["members"])
    values, shared = charts.correlations((evidence.probabilities(name) for name in names), evidence.competition.family)
    if not np.isfinite(values).any():
        return None
    floor = min(math.floor(10 * np.nanmin(values)) / 10, 0.9)
    tints = np.nan_to_num((values - floor) / (1.0 - floor))
    rows = np.stack([values, shared, tints], axis=-1).tolist()
    return {"names": names, "rows": rows, "floor": floor}


def calibration(evidence: Evidence) -> dict[str, Any] | None:
    """Returns the plot of stack and best member for each probability, and the stack's bins as numbers; None without."""
    family, best = evidence.competition.family, evidence.cv["stack"]["best_member"]
    if not family.bounded:
        return None
    stack, member = float_array(evidence.level2.select(evidence.competition.outputs)), evidence.probabilities(best)
    classes = evidence.competition.outputs[:MOST_PLOTS]
    hits = [family.statistic(frame["label"].to_numpy()) for frame in (evidence.level2, evidence.oof)]
    # Where a label is not known, nobody knows whether an answer was right.
    stack, member = (np.where(np.isfinite(hit), each, np.nan) for hit, each in zip(hits, (stack, member), strict=True))
    bins = [charts.reliability(hits[0][:, c], stack[:, c]) for c in range(len(classes))]
    faint = [charts.reliability(hits[1][:, c], member[:, c]) for c in range(len(classes))]
    plots = [charts.reliability_plot(*each) for each in zip(classes, bins, faint, strict=True)]
    gaps = [charts.calibration_error(one) for one in bins]
    return {"classes": list(zip(classes, plots, bins, gaps, strict=True)), "best": best} if any(bins) else None


def rehearsal(evidence: Evidence) -> dict[str, Any]:
    """Returns metrics/rehearsal.json with bars for the time and the rungs, and the plan as a table."""
    found, per_rung = evidence.rehearsal, evidence.rehearsal.get("rows_per_rung") or {}
    known = found.get("rungs") or []
    counts = {name: per_rung[name] for name in dict.fromkeys([*known, *per_rung]) if name in per_rung}
    rungs = [(name, count, charts.share_strip(count / max(found["rows"], 1))) for name, count in counts.items()]
    steps = [step if isinstance(step, dict) else {"step": step} for step in found.get("plan") or []]
    columns = dict.fromkeys(key for step in steps for key in step)
    used = charts.share_strip(found["elapsed_seconds"] / found["budget_seconds"])
    shown = {"used": used, "rungs": rungs, "rungs_known": known, "hidden": found.get("hidden")}
    return found | shown | {"steps": steps, "columns": columns}


def spent(evidence: Evidence) -> dict[str, Any]:
    """Returns seconds per stage in the graph's order; a member's folds are one bar, former members are left out."""
    groups: dict[tuple[str, str], list[float]] = {}
    for run, seconds in evidence.seconds.items():
        stage, _, item = run.partition("@")
        member = item.rpartition("-")[0] if stage == "finetune" else item
        gone = stage in ("finetune", "refit") and member not in evidence.cv["members"]
        # The page's own time is known only after it is written; `make repro` as a whole would count all of them twice.
        if not gone and stage not in ("report", "repro"):
            groups.setdefault((stage, member), []).append(seconds)
    ordered = sorted(groups, key=lambda key: (STAGES.index(key[0]) if key[0] in STAGES else len(STAGES), key))
    totals = {key: sum(groups[key]) for key in ordered}
    longest = max(totals.values(), default=0.0) or 1.0
    rows = [(*key, len(groups[key]), total, charts.share_strip(total / longest)) for key, total in totals.items()]
    return {"rows": rows, "total": sum(totals.values())}


SECTIONS = {
    "members": members,
    "stack": lambda evidence: evidence.cv,
    "leaderboard": lambda evidence: leaderboard(
        evidence.ledger, finite(evidence.cv["stack"]["score"]), evidence.choice
    ),
    "decisive": lambda evidence: evidence.cv.get("decisive"),
    "alike": alike,
    "calibration": calibration,
    "checks": lambda evidence: stack_section.checks(evidence.cv, evidence.probe, evidence.diagnostics),
    "marginal": lambda evidence: stack_section.marginal(evidence.diagnostics),
    "sources": lambda evidence: stack_section.sources(evidence.sources),
    "slices": lambda evidence: stack_section.slice_families(evidence.cv, evidence.diagnostics),
    "disagreements": lambda evidence: stack_section.disagreement_rows(evidence.competition, evidence.diagnostics),
    "training": training,
    "rehearsal": rehearsal,
    "spent": spent,
    "words": lambda evidence: evidence.cv,
}
"""In the page's order: the name of a macro in page.html -> the function that makes what it is given."""
