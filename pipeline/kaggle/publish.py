"""Takes a rehearsed package to a kernel that has run on Kaggle: checks, dataset, commit, push, dress rehearsal.

python -m stages.publish

What was pushed and how its run went stands in work/kaggle/published.json, so that a repeat picks up where it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.artifacts import MANIFEST, REHEARSAL_METRICS, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.kaggle.cli import STATE_FOLDER, Patience
from pipeline.kaggle.credentials import Credentials, require_credentials
from pipeline.kaggle.dataset import RUN_TIMINGS, content_hash, upload
from pipeline.kaggle.push import (
    KERNEL_METADATA,
    REHEARSAL,
    fetch_output,
    filled_metadata,
    log_lines,
    predicted_seconds,
    push,
    quota,
    wait_for_run,
)
from pipeline.kaggle.upload import check_sizes
from pipeline.ledger.git import check_can_tag, commit_here, commit_of, file_at, numbered_tags, refuse_dirty, tag_message
from pipeline.ledger.history import dvc_repository
from pipeline.ledger.ledger import LB, NO_SCORE, clock
from pipeline.package.rehearse import KERNEL

PACKAGE = Artifacts().package
RECORD = STATE_FOLDER / "published.json"
PLACEHOLDER = "your-kaggle-name"
HOUR = 3600.0


@dataclass(frozen=True)
class Published:
    """The newest push: what it was made of, its version, and whether its run is known to have succeeded."""

    kernel: str
    version: int
    made_of: str
    """Hash of script, metadata and time limit, dataset version and package."""
    package: str
    dataset_version: int
    complete: bool = False
    elapsed_seconds: float | None = None
    predicted_seconds: float | None = None


def with_owner(settings: Package, credentials: Credentials | None) -> Package:
    """Returns `settings` with the name beside the user's key as owner, where package.owner has not been filled in."""
    name = credentials and credentials.username
    return replace(settings, owner=name) if name and settings.owner == PLACEHOLDER else settings


def owned(settings: Package) -> Package:
    """Returns `settings` with the user's name. Raises: PodiumError where it, or the credentials, are not known."""
    settings = with_owner(settings, require_credentials())
    if settings.owner == PLACEHOLDER:
        raise PodiumError(f"params.yaml: package.owner: expected your Kaggle name, found {PLACEHOLDER}")
    return settings


def check_package() -> None:
    """Raises: PodiumError for a package that is missing, too large, stale, or did not pass its rehearsal."""
    content_hash(PACKAGE)  # refuses a missing one
    check_rehearsal()
    check_sizes(PACKAGE, KERNEL)


def check_rehearsal() -> None:
    """Raises: PodiumError where the rehearsal is missing, failed, or is not that of the present params and code."""
    try:
        valid = read_json(REHEARSAL_METRICS)["valid"]
        problem = f"valid: expected true, found {json.dumps(valid)}; run `dvc repro -f rehearse`"
    except (OSError, ValueError, KeyError):
        valid, problem = False, "expected the rehearsal of the package, found none; run `dvc repro`"
    if valid is not True:
        raise PodiumError(f"{REHEARSAL_METRICS}: {problem}")
    check_fresh()


def check_fresh() -> None:
    """Raises: PodiumError where params, code or data have changed since the package was built."""
    with dvc_repository() as repository:
        stale = sorted(repository.status(targets=["rehearse"], with_deps=True))
    if stale:
        raise PodiumError(f"the package is older than what it is made of ({stale[0]} has changed); run `dvc repro`")


def publish(settings: Package, competition: Competition, allow_dirty: bool, again: bool, patience: Patience) -> None:
    """Brings package and kernel to Kaggle and waits for the kernel's dress rehearsal; safe to repeat.

    Commits kernel-metadata.json with the user's name, and lb.json without a score, where they were not so before; a
    score of this very push stays. `again` pushes although the same code and data have been pushed.

    Raises: PodiumError in one line for whatever is wrong.
    """
    settings = owned(settings)
    refuse_dirty(allow_dirty)
    check_can_tag()  # what will be submitted is committed now, by the same name
    check_package()
    dataset_version = upload(PACKAGE, settings, commit_of("HEAD"), HOUR, patience)
    metadata = filled_metadata(settings, competition)
    made_of = push_hash(metadata, settings.budget_seconds, dataset_version)
    commit_published(metadata, keep_score=not again and submitted_as(made_of) is not None)
    record = published()
    if record is None or again or record.made_of != made_of:
        print(quota(settings, patience), flush=True)
        version = push(metadata["id"], settings, patience)
        record = Published(metadata["id"], version, made_of, content_hash(PACKAGE), dataset_version)
        write_json(RECORD, asdict(record))
    else:
        print(f"kernel {record.kernel}: version {record.version} has this code and data, nothing to push", flush=True)
    finish_run(record, settings, competition, patience)


def push_hash(metadata: dict[str, Any], seconds: int, dataset_version: int) -> str:
    """Returns a hash of all that decides a push."""
    parts = [KERNEL.read_text(encoding="utf-8"), metadata, seconds, dataset_version, content_hash(PACKAGE)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def published() -> Published | None:
    """Returns the record of the last push; None before the first one."""
    return Published(**read_json(RECORD)) if RECORD.is_file() else None


def submitted_as(content: str) -> str | None:
    """Returns the tag sub-N of the submission that sent the very same `content`, the hash of a push or of a file."""
    tags = (f"sub-{number}" for number in numbered_tags("sub"))
    return next((tag for tag in tags if content in tag_message(tag)), None)


def commit_published(metadata: dict[str, Any] | None, keep_score: bool = False) -> None:
    """Commits lb.json as one without a score, and kernel-metadata.json as given, as far as HEAD has them otherwise."""
    wanted = {} if keep_score else {LB.name: NO_SCORE}
    if metadata is not None:
        wanted[KERNEL_METADATA.as_posix()] = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    if changed := {path: text for path, text in wanted.items() if file_at("HEAD", path) != text}:
        commit = commit_here(changed, "Publish: lb.json without a score, the kernel's metadata filled in")
        print(f"committed {', '.join(changed)} as {commit[:8]}", flush=True)


def finish_run(record: Published, settings: Package, competition: Competition, patience: Patience) -> None:
    """Waits for the run of a pushed version, fetches its log and timings once, and says what they mean."""
    folder = STATE_FOLDER / "output" / f"version-{record.version}"
    if not record.complete:
        limit = settings.budget_seconds + HOUR  # an hour for the queue
        wait_for_run(record.kernel, record.version, limit, folder, patience)
        fetch_output(record.kernel, folder, patience)
        found, manifest = read_json(folder / REHEARSAL), read_json(PACKAGE / MANIFEST)
        if (expected := [rung["name"] for rung in manifest["rungs"]]) != found["rungs"]:
            raise PodiumError(f"{folder / REHEARSAL}: rungs: expected {expected}, found {found['rungs']}")
        seconds = {"elapsed_seconds": found["elapsed_seconds"], "predicted_seconds": predicted_seconds(found)}
        record = replace(record, complete=True, **seconds)
        write_json(RECORD, asdict(record))
        # The next package takes them along, so that its scored run starts from what this machine has shown.
        write_json(RUN_TIMINGS, found.get("timings") or {})
    slug = record.kernel.rpartition("/")[2]
    for line in log_lines(folder / f"{slug}.log")[-3:]:
        print(f"kernel: {line}", flush=True)
    print(runtime_outlook(record, settings, competition), flush=True)


def runtime_outlook(record: Published, settings: Package, competition: Competition) -> str:
    """Returns in words what the dress rehearsal took, and what the scored rerun may take."""
    took = f"dress rehearsal on Kaggle: {clock(record.elapsed_seconds or 0.0)}"
    if record.predicted_seconds is None:
        return f"{took}; {competition.name}.yaml does not say how many rows are hidden (hidden_rows): no prediction"
    share = record.predicted_seconds / settings.budget_seconds
    line = (
        f"{took}; predicted for {competition.hidden_rows:,} hidden rows: {clock(record.predicted_seconds)}, "
        f"{share:.0%} of the budget (an upper bound for everything)"
    )
    return line if share < 1 else f"{line}: the planner may have to leave something out"
