"""One table of all submitted commits: changed params, CV, LB, gap and run time, and how CV and LB agree.

python -m stages.compare

It reads tags, `dvc params diff`, `dvc metrics diff` and ledger.csv; it needs no network.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from pipeline.ledger.agreement import agreement, agreement_lines
from pipeline.ledger.git import numbered_tags
from pipeline.ledger.history import changed_params, metrics_of, read_ledger, submitted_commits
from pipeline.ledger.ledger import Entry, clock, decimals, present_cv

HEADER = ("sub", "commit", "CV (nested) ± SE", "public LB", "private", "gap", "run time / budget", "changed params")


def submitted_entries() -> list[Entry]:
    """Returns every submission of this repository in its order; one without a score yet has the status `pending`.

    Raises: PodiumError where there is none.
    """
    sent, scored = submitted_commits(), numbered_tags("lb")
    revisions = {number: f"lb-{number}" if number in scored else f"sub-{number}" for number in sent}
    known = {entry.submission: entry for entry in read_ledger("HEAD")}
    for number in scored:
        known |= {entry.submission: entry for entry in read_ledger(f"lb-{number}") if entry.submission == number}
    entries: list[Entry] = []
    metrics, changes = metrics_of(list(revisions.values())), changed_params(list(pairwise(revisions.values())))
    for (number, commit), changed in zip(sent.items(), ["", *changes], strict=True):
        entry = known.get(number) or Entry(number, commit, status="pending")
        measured: dict[str, Any] = metrics[revisions[number]]
        if number not in scored:
            measured = {key: measured[key] for key in ("cv", "cv_error")}
        entries.append(replace(entry, changes=changed, **measured))
    return entries


def table_cells(entry: Entry) -> tuple[str, ...]:
    """Returns one entry as the table shows it."""
    cv = decimals(entry.cv) + (f" ± {entry.cv_error:.5f}" if entry.cv_error is not None else "")
    public = decimals(entry.public) if entry.status == "complete" else entry.status
    gap = "–" if entry.gap is None else f"{entry.gap:+.5f}"
    time = "–"
    if entry.runtime_seconds is not None and entry.budget_seconds:
        share = entry.runtime_seconds / entry.budget_seconds
        time = f"{clock(entry.runtime_seconds)} / {clock(entry.budget_seconds)} ({share:.1%})"
    scores = cv, public, decimals(entry.private), gap
    return str(entry.submission), entry.commit[:8], *scores, time, entry.changes or "–"


def table_lines(entries: list[Entry], markdown: bool) -> list[str]:
    """Returns the lines of the table."""
    rows = [HEADER, *map(table_cells, entries)]
    if markdown:
        escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        head, *lines = [f"| {' | '.join(row)} |" for row in escaped]
        return [head, "|" + "---|" * len(HEADER), *lines]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADER) - 1)]
    return ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]).rstrip() for row in rows]


def comparison(markdown: bool) -> str:
    """Returns the table and, below it, how CV and LB agree. Raises: PodiumError where nothing was submitted."""
    entries = submitted_entries()
    return "\n".join([*table_lines(entries, markdown), "", *agreement_lines(agreement(entries, present_cv()))])
