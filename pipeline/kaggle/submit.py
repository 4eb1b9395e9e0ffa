"""Makes one submission for one commit: what is sent, how it is found again, and the tag that marks the commit.

python -m stages.submit

The description names the commit, by which `sync_lb` finds the score; the tag `sub-N` holds what else is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.artifacts import CV_METRICS, REHEARSAL_METRICS, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file
from pipeline.kaggle.cli import PAGE_SIZE, Patience, json_in, kaggle
from pipeline.kaggle.credentials import require_credentials
from pipeline.kaggle.publish import (
    Published,
    check_rehearsal,
    commit_published,
    owned,
    published,
    push_hash,
    runtime_outlook,
    submitted_as,
)
from pipeline.kaggle.push import filled_metadata
from pipeline.kaggle.waiting import wait
from pipeline.ledger.git import changed_files, check_can_tag, commit_of, file_at, git, numbered_tags, refuse_dirty
from pipeline.ledger.ledger import LB, NO_SCORE, present_cv

SUBMISSION_FILE = Artifacts().submission_file
LISTED_SECONDS = 120.0


def submissions(competition: Competition, patience: Patience) -> list[dict[str, Any]]:
    """Returns the newest submissions as the CLI lists them: ref, date, description, status, publicScore, ..."""
    size = ("--format", "json", "--page-size", PAGE_SIZE)
    printed = kaggle("competitions", "submissions", competition.name, *size, patience=patience)
    return [] if "No submissions found" in printed else json_in(printed)


def submission_of(listed: list[dict[str, Any]], commit: str, besides: Sequence[Any] = ()) -> dict[str, Any] | None:
    """Returns the newest submission whose description names `commit` and whose ref is none of `besides`."""
    named = [each for each in listed if re.search(rf"\bcommit {commit}\b", each.get("description") or "")]
    found = [each for each in named if each.get("ref") not in besides]
    return max(found, key=lambda each: each.get("date") or "", default=None)


def submit(settings: Package, competition: Competition, allow_dirty: bool, again: bool, patience: Patience) -> str:
    """Submits HEAD and returns its tag; what has been submitted before is not, unless `again` says so.

    Raises: PodiumError where the tree is dirty, nothing fitting has been published, or Kaggle does not list it after.
    """
    require_credentials()
    refuse_dirty(allow_dirty)
    settings = owned(settings) if competition.submission == "code" else settings
    record, content = check_ready(settings, competition)
    if record:
        print(runtime_outlook(record, settings, competition), flush=True)
    if (known := submitted_as(content)) and not again:
        print(already_submitted(record, known), flush=True)
        return known
    if record is None:
        commit_published(None)
    elif file_at("HEAD", str(LB)) != NO_SCORE:
        raise PodiumError(f"{LB}: expected nulls, found a score; run `make publish`")
    check_can_tag()
    commit = commit_of("HEAD")
    tag = f"sub-{max(numbered_tags('sub'), default=0) + 1}"
    listed = submissions(competition, patience)
    earlier = [each.get("ref") for each in listed] if again else []
    found = submission_of(listed, commit, earlier)
    if found is None:
        command = submit_command(competition, record, description(tag, commit))
        found = _send(competition, command, commit, earlier, patience)
    else:
        print(f"Kaggle lists a submission of commit {commit[:8]} already", flush=True)
    facts = {"ref": found.get("ref"), "content": content, "budget_seconds": settings.budget_seconds}
    facts |= asdict(record) if record else {"elapsed_seconds": read_json(REHEARSAL_METRICS)["elapsed_seconds"]}
    git("tag", "-a", tag, commit, "-m", json.dumps(facts, indent=2))
    print(f"{tag}: commit {commit[:8]} submitted to {competition.name}; `make sync-lb` fetches its score", flush=True)
    return tag


def check_ready(settings: Package, competition: Competition) -> tuple[Published | None, str]:
    """Returns the push that can be submitted (None where the competition takes a file), and the hash of its content.

    Raises: PodiumError where there is nothing that fits what is here now.
    """
    if competition.submission != "code":
        check_rehearsal()
        if not SUBMISSION_FILE.is_file():
            raise PodiumError(f"{SUBMISSION_FILE}: no such file; run `dvc repro`")
        return None, sha256_file(SUBMISSION_FILE)
    record, metadata = published(), filled_metadata(settings, competition)
    if record is None or not record.complete:
        raise PodiumError("no kernel has finished its dress rehearsal on Kaggle; run `make publish`")
    if record.made_of != push_hash(metadata, settings.budget_seconds, record.dataset_version):
        raise PodiumError(f"kernel version {record.version} is older than the package or its code; run `make publish`")
    return record, record.made_of


def already_submitted(record: Published | None, tag: str) -> str:
    """Returns a line that says that the submission `tag` sent the same."""
    what = f"kernel version {record.version}" if record else str(SUBMISSION_FILE)
    return f"{what} has been submitted as {tag}, commit {commit_of(tag)[:8]}"


def description(tag: str, commit: str) -> str:
    """Returns what stands beside the submission on Kaggle. Raises: PodiumError where there is no CV."""
    if (cv := present_cv()) is None:
        raise PodiumError(f"{CV_METRICS}: no such file; run `dvc repro`")
    edited = " (with edits that are in no commit)" if changed_files() else ""
    return f"podium {tag} commit {commit}{edited} cv {cv:.5f}"


def submit_command(competition: Competition, record: Published | None, message: str) -> list[str]:
    """Returns the arguments of `kaggle` that submit a kernel's version, or without a kernel the rehearsal's file."""
    kernel = ["-k", record.kernel, "-v", str(record.version)] if record else []
    file = "submission.csv" if record else str(SUBMISSION_FILE)
    return ["competitions", "submit", competition.name, *kernel, "-f", file, "-m", message]


def _send(
    competition: Competition, command: list[str], commit: str, earlier: Sequence[Any], patience: Patience
) -> dict[str, Any]:
    """Submits, and returns the submission as Kaggle lists it: one whose ref is not among the `earlier` ones."""

    def judge(printed: str) -> str | None:
        failed = re.search(r"Could not (submit to|find) competition.*", printed)
        return failed[0] if failed else None

    def listed() -> dict[str, Any] | None:
        return submission_of(submissions(competition, patience), commit, earlier)

    printed = kaggle(*command, patience=patience, judge=judge, finished=lambda: listed() is not None)
    said = " ".join(printed.split())

    def look() -> tuple[str, dict[str, Any] | None]:
        found = listed()
        return ("listed" if found else f"not listed, Kaggle said: {said}"), found

    hint = f"see https://www.kaggle.com/competitions/{competition.name}/submissions before you submit again"
    return wait(f"submission of {commit[:8]}", look, LISTED_SECONDS, min(patience.poll, 5.0), hint)
