"""One submission for one commit: what is sent, how it is found again, and the tag that marks the commit.

python -m stages.submit

The description names the commit, by which `sync_lb` finds the score; the tag `sub-N` holds what else is known.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.delivery.credentials import require_credentials
from pipeline.delivery.git import changed_files, commit_of, file_at, git, numbered_tags, refuse_dirty
from pipeline.delivery.kaggle import Patience, json_in, kaggle
from pipeline.delivery.kernel import METADATA, filled_metadata
from pipeline.delivery.ledger import LB, NOTHING
from pipeline.delivery.publish import (
    METRICS,
    Published,
    check_rehearsal,
    commit_published,
    fingerprint,
    owned,
    prospect,
    published,
    submitted_as,
)
from pipeline.delivery.waiting import wait
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file

FILE = Path("artifacts/rehearsal/submission.csv")
CV = Path("metrics/cv.json")
LISTED_SECONDS = 120.0
PAGE = 100


def submissions(competition: Competition, patience: Patience) -> list[dict[str, Any]]:
    """The newest submissions as the CLI lists them: ref, date, description, status, publicScore, privateScore."""
    size = ("--format", "json", "--page-size", str(PAGE))
    printed = kaggle("competitions", "submissions", competition.name, *size, patience=patience)
    return [] if "No submissions found" in printed else json_in(printed)


def of_commit(listed: list[dict[str, Any]], commit: str) -> dict[str, Any] | None:
    """The newest submission whose description names `commit`."""
    found = [each for each in listed if re.search(rf"\bcommit {commit}\b", each.get("description") or "")]
    return max(found, key=lambda each: each.get("date") or "", default=None)


def submit(settings: Package, competition: Competition, allow_dirty: bool, again: bool, patience: Patience) -> str:
    """Submits HEAD and returns its tag; what has been submitted before is not, unless `again` says so.

    Raises: PodiumError where the tree is dirty, nothing fitting has been published, or Kaggle does not list it after.
    """
    require_credentials()
    refuse_dirty(allow_dirty)
    record, content = None, ""
    if competition.submission == "code":
        settings = owned(settings)
        record = check_run(settings, competition)
        content = record.made_of
        print(prospect(record, settings, competition), flush=True)
    else:
        check_file()
        content = sha256_file(FILE)
    if (known := submitted_as(content)) and not again:
        what = f"kernel version {record.version}" if record else str(FILE)
        print(f"{what} has been submitted as {known}, commit {commit_of(known)[:8]}", flush=True)
        return known
    check_score() if record else commit_published(None)
    commit = commit_of("HEAD")
    tag = f"sub-{max(numbered_tags('sub'), default=0) + 1}"
    found = None if again else of_commit(submissions(competition, patience), commit)
    if found is None:
        found = _send(competition, record, commit, description(tag, commit), patience)
    else:
        print(f"Kaggle lists a submission of commit {commit[:8]} already", flush=True)
    facts = {"ref": found.get("ref"), "content": content, "budget_seconds": settings.budget_seconds}
    facts |= asdict(record) if record else {"elapsed_seconds": read_json(METRICS)["elapsed_seconds"]}
    git("tag", "-a", tag, commit, "-m", json.dumps(facts, indent=2))
    print(f"{tag}: commit {commit[:8]} submitted to {competition.name}; `make sync-lb` fetches its score", flush=True)
    return tag


def description(tag: str, commit: str) -> str:
    """What stands beside the submission on Kaggle."""
    edited = " (with edits that are in no commit)" if changed_files() else ""
    return f"podium {tag} commit {commit}{edited} cv {read_json(CV)['stack']['score']:.5f}"


def command(competition: Competition, record: Published | None, message: str) -> list[str]:
    """The arguments of `kaggle` that submit a kernel's version, or the rehearsal's file where there is no kernel."""
    sent = ["-f", str(FILE)]
    if record:
        sent = ["-k", record.kernel, "-v", str(record.version), "-f", "submission.csv"]
    return ["competitions", "submit", competition.name, *sent, "-m", message]


def check_run(settings: Package, competition: Competition) -> Published:
    """The push that holds what is here now. Raises: PodiumError where there is none, or its run has not succeeded."""
    record, metadata = published(), filled_metadata(read_json(METADATA), settings, competition)
    if record is None or not record.complete:
        raise PodiumError("no kernel has finished its dress rehearsal on Kaggle; run `make publish`")
    if record.made_of != fingerprint(metadata, settings.budget_seconds, record.dataset_version):
        raise PodiumError(f"kernel version {record.version} is older than the package or its code; run `make publish`")
    return record


def check_score() -> None:
    """Raises: PodiumError where HEAD has the score of another commit."""
    if file_at("HEAD", str(LB)) != NOTHING:
        raise PodiumError(f"{LB}: expected nulls, found a score; run `make publish`")


def check_file() -> None:
    """Raises: PodiumError where the rehearsal left no valid submission file."""
    check_rehearsal()
    if not FILE.is_file():
        raise PodiumError(f"{FILE}: no such file; run `dvc repro`")


def _send(
    competition: Competition, record: Published | None, commit: str, message: str, patience: Patience
) -> dict[str, Any]:
    def judge(printed: str) -> str | None:
        failed = re.search(r"Could not (submit to|find) competition.*", printed)
        return failed[0] if failed else None

    def listed() -> dict[str, Any] | None:
        return of_commit(submissions(competition, patience), commit)

    arguments = command(competition, record, message)
    printed = kaggle(*arguments, patience=patience, judge=judge, finished=lambda: listed() is not None)
    said = " ".join(printed.split())

    def look() -> tuple[str, dict[str, Any] | None]:
        found = listed()
        return ("listed" if found else f"not listed, Kaggle said: {said}"), found

    hint = f"see https://www.kaggle.com/competitions/{competition.name}/submissions before you submit again"
    return wait(f"submission of {commit[:8]}", look, LISTED_SECONDS, min(patience.poll, 5.0), hint)
