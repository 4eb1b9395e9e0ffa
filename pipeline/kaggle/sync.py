"""Brings the scores home: each submitted commit gets lb.json and a line of ledger.csv in a commit on top, tagged lb-N.

python -m stages.sync_lb

Where HEAD is the submitted commit, the branch moves on to the new one. Where work has gone on, the new commit stands
beside the branch, held by its tag, and the branch gets the ledger's line only.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from pipeline.artifacts import CV_METRICS
from pipeline.competitions.task import Competition
from pipeline.kaggle.cli import Patience
from pipeline.kaggle.submit import submission_of, submissions
from pipeline.kaggle.waiting import wait
from pipeline.ledger.git import (
    check_can_tag,
    commit_here,
    commit_of,
    commit_on,
    file_at,
    git,
    numbered_tags,
    tag_message,
)
from pipeline.ledger.history import changed_params, read_ledger, submitted_commits
from pipeline.ledger.ledger import LB, LEDGER, Entry, decimals, lb_text, ledger_text, nested_score, with_entries


def sync(competition: Competition, wait_seconds: float, patience: Patience) -> None:
    """Reads the submissions and writes down every score that is new or has changed.

    With `wait_seconds` it goes on for that long while some are still being scored.

    Raises: PodiumError where nothing was submitted from here, or the time is over.
    """
    tags = submitted_commits()

    def look() -> tuple[str, bool | None]:
        entries = [entry for entry in _entries(competition, tags, patience) if entry.status in ("complete", "error")]
        fresh = [entry for entry in entries if lb_text(vars(entry)) != file_at(f"lb-{entry.submission}", str(LB))]
        if fresh:
            check_can_tag()
            record_scores([_with_changes(entry, tags) for entry in fresh], tags)
        missing = sorted(set(tags) - {entry.submission for entry in entries} - set(numbered_tags("lb")))
        waiting = ", ".join(f"sub-{number}" for number in missing)
        return f"no score yet for {waiting}" if missing else "every submission has its score", not missing or None

    if wait_seconds:
        wait(competition.name, look, wait_seconds, patience.poll)
    else:
        print(f"{competition.name}: {look()[0]}")


def _entries(competition: Competition, tags: dict[int, str], patience: Patience) -> list[Entry]:
    """Returns what is known of each submission that Kaggle lists; it lists the newest ones only."""
    listed, scored = submissions(competition, patience), numbered_tags("lb")
    facts = {number: _facts(f"sub-{number}") for number in tags}
    by_ref = {each["ref"]: each for each in listed if "ref" in each}
    taken = [each["ref"] for each in facts.values() if "ref" in each]
    entries = []
    for number, commit in tags.items():
        # A commit can be submitted twice (--again); then only the ref tells which is which.
        if submission := by_ref.get(facts[number].get("ref")) or submission_of(listed, commit, taken):
            entries.append(_entry(number, commit, facts[number], submission))
        elif number not in scored:
            print(f"sub-{number}: {competition.name} lists no submission of commit {commit[:8]}", flush=True)
    return entries


def _facts(tag: str) -> dict[str, Any]:
    """Returns what `submit` wrote into the tag; nothing for one that was made by hand."""
    try:
        found = json.loads(tag_message(tag))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _entry(number: int, commit: str, facts: dict[str, Any], submission: dict[str, Any]) -> Entry:
    """Returns what Kaggle, the tag and the commit itself say of one submission."""
    metrics = file_at(commit, CV_METRICS.as_posix())
    cv, cv_error = nested_score(metrics, f"{CV_METRICS} in commit {commit[:8]}") if metrics else (None, None)
    return Entry(
        submission=number,
        commit=commit,
        date=str(submission.get("date") or "")[:19],
        status=str(submission.get("status") or "").rpartition(".")[2].lower(),
        cv=cv,
        cv_error=cv_error,
        public=_score(submission.get("publicScore")),
        private=_score(submission.get("privateScore")),
        runtime_seconds=facts.get("elapsed_seconds"),
        predicted_seconds=facts.get("predicted_seconds"),
        budget_seconds=facts.get("budget_seconds"),
    )


def _score(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _with_changes(entry: Entry, tags: dict[int, str]) -> Entry:
    before = max((number for number in tags if number < entry.submission), default=None)
    if before is None:
        return entry
    return replace(entry, changes=changed_params([(f"sub-{before}", f"sub-{entry.submission}")])[0])


def record_scores(fresh: list[Entry], tags: dict[int, str]) -> None:
    """Makes the commits of these scores, and moves the tags lb-N to them."""
    for entry in fresh:
        tag = f"lb-{entry.submission}"
        known = numbered_tags("lb").get(entry.submission)
        base, message = known or tags[entry.submission], f"LB: {tag} {entry.status}, public {entry.public}"
        here = base == commit_of("HEAD")
        lines = with_entries(read_ledger(base), fresh if here else [entry])
        files = {str(LB): lb_text(vars(entry)), str(LEDGER): ledger_text(lines)}
        made = commit_here(files, message) if here else commit_on(base, files, message)
        git("tag", "-f", "-a", tag, made, "-m", message)
        said = f"public {decimals(entry.public)}, private {decimals(entry.private)}, CV {decimals(entry.cv)}"
        print(f"{tag}: {entry.status}, {said}", flush=True)
    text = ledger_text(with_entries(read_ledger("HEAD"), fresh))
    if file_at("HEAD", str(LEDGER)) != text:
        commit_here({str(LEDGER): text}, f"Ledger: {', '.join(f'lb-{entry.submission}' for entry in fresh)}")
