"""One table of all submitted commits: changed params, CV, LB, gap and run time, and how CV and LB agree.

python -m stages.compare

It reads tags, `dvc params diff`, `dvc metrics diff` and ledger.csv; it needs no network.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.errors import PodiumError
from pipeline.kaggle.waiting import clock
from pipeline.ledger.agreement import agreement, in_words
from pipeline.ledger.git import numbered_tags
from pipeline.ledger.history import changed_params, dvc_repository, metrics_of
from pipeline.ledger.ledger import CV, Entry, decimals, nested_score
from pipeline.ledger.sync import read_ledger

HEADER = ("sub", "commit", "CV (nested) ± SE", "public LB", "private", "gap", "run time / budget", "changed params")


def submitted() -> list[Entry]:
    """Every submission of this repository in its order; one without a score yet has the status `pending`.

    Raises: PodiumError where there is none.
    """
    sent, scored = numbered_tags("sub"), numbered_tags("lb")
    if not sent:
        raise PodiumError("no tag sub-N: nothing was submitted from this repository; run `make submit`")
    revisions = {number: f"lb-{number}" if number in scored else f"sub-{number}" for number in sent}
    known = {entry.submission: entry for entry in read_ledger("HEAD")}
    for number in scored:
        known |= {entry.submission: entry for entry in read_ledger(f"lb-{number}") if entry.submission == number}
    entries: list[Entry] = []
    with dvc_repository() as repository:
        metrics = metrics_of(repository, list(revisions.values()))
        for number, commit in sent.items():
            entry = known.get(number) or Entry(number, commit, status="pending")
            said = metrics[revisions[number]]
            before = revisions[entries[-1].submission] if entries else None
            changes = changed_params(repository, before, revisions[number]) if before else ""
            entry = replace(entry, cv=said["cv"], cv_error=said["cv_error"], changes=changes)
            if number in scored:
                entry = replace(entry, public=said["public"], private=said["private"])
                entry = replace(entry, runtime_seconds=said["runtime_seconds"])
            entries.append(entry)
    return entries


def present_cv(path: Path = CV) -> float | None:
    """The level-2 nested score of the working tree; None where there is none yet."""
    return nested_score(path.read_text(encoding="utf-8"), str(path))[0] if path.is_file() else None


def cells(entry: Entry) -> tuple[str, ...]:
    """One entry as the table shows it, without the column of changes."""
    cv = decimals(entry.cv) + (f" ± {entry.cv_error:.5f}" if entry.cv_error is not None else "")
    public = decimals(entry.public) if entry.status == "complete" else entry.status
    gap = "–" if entry.gap is None else f"{entry.gap:+.5f}"
    time = "–"
    if entry.runtime_seconds is not None and entry.budget_seconds:
        share = entry.runtime_seconds / entry.budget_seconds
        time = f"{clock(entry.runtime_seconds)} / {clock(entry.budget_seconds)} ({share:.1%})"
    return str(entry.submission), entry.commit[:8], cv, public, decimals(entry.private), gap, time


def table(entries: list[Entry], markdown: bool) -> list[str]:
    """The lines of the table, changed params in its last column."""
    rows = [HEADER, *((*cells(entry), entry.changes or "–") for entry in entries)]
    if markdown:
        rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
        rule = "|" + "|".join("---" for _ in HEADER) + "|"
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return [lines[0], rule, *lines[1:]]
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEADER) - 1)]
    return ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]).rstrip() for row in rows]


def compare(markdown: bool) -> str:
    """The whole view as text."""
    entries = submitted()
    return "\n".join([*table(entries, markdown), "", *in_words(agreement(entries, present_cv()))])
