"""Makes the package a Kaggle dataset: created, or a new version of it, or left alone where Kaggle has it already.

A version's notes say `podium <hash> commit <sha>`. The hash is that of MANIFEST.json, which holds the hashes of all
other files. Version 1, to which the CLI gives no notes, is recognised by its MANIFEST.json itself. Each base that fold
models share is a dataset of its own (see pipeline/package/bases.py), brought before the package in the same way.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.artifacts import MANIFEST
from pipeline.config import Package
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file, write_json
from pipeline.kaggle.cli import STATE_FOLDER, KaggleError, Patience, json_in, kaggle
from pipeline.kaggle.upload import stage_base, stage_upload
from pipeline.kaggle.waiting import wait
from pipeline.package.bases import BASE, base_slug, bases_of
from pipeline.package.manifest import write_metadata

NOT_ALL = r"^(Upload unsuccessful|Skipping)"
"""The CLI leaves such a file out, makes the version without it, and exits with 0."""

RUN_TIMINGS = STATE_FOLDER / "timings.json"
"""What the last dress rehearsal on Kaggle has measured. It goes beside the package and is not part of its hash."""

INCOMPLETE = STATE_FOLDER / "incomplete.json"
"""[dataset, hash] of uploads that lost a file: a version with these notes is not to be trusted."""


@dataclass(frozen=True)
class Remote:
    """A dataset as Kaggle has it."""

    state: str
    """`ready` where its newest version can be mounted."""
    current: int
    notes: str
    """Notes of the current version; empty where there are none."""


@dataclass(frozen=True)
class Parcel:
    """What becomes a version of a dataset."""

    what: str
    digest: str
    """The hash of its label, which holds the hashes of all other files."""
    label: str
    stage: Callable[[Path], Path]
    """Fills a folder with what is sent; returns its absolute path."""


def content_hash(package: Path) -> str:
    """Returns a hex SHA-256 that changes with any byte of the package. Raises: PodiumError for a missing package."""
    if not (package / MANIFEST).is_file():
        raise PodiumError(f"{package / MANIFEST}: no such file; run `dvc repro`")
    return sha256_file(package / MANIFEST)


def look_up(dataset: str, patience: Patience) -> Remote | None:
    """Returns the dataset's current version; None where it does not exist, or is not ours to see."""
    try:
        found = json_in(kaggle("look", dataset, patience=patience))
    except KaggleError as error:
        if error.status in (403, 404):  # Kaggle gives either answer for a private dataset that is not there
            return None
        raise
    notes = {int(version): note or "" for version, note in found["notes"].items()}
    current = found["current"] or max(notes, default=1)
    return Remote(found["state"], current, notes.get(current, ""))


def up_to_date(dataset: str, remote: Remote | None, parcel: Parcel, patience: Patience) -> bool:
    """Tells whether the current version holds the parcel, whole."""
    wanted = parcel.digest
    if remote is None or [dataset, wanted] in _incomplete():
        return False
    if noted := re.search(r"podium ([0-9a-f]{64})", remote.notes):
        return noted[1] == wanted
    with tempfile.TemporaryDirectory() as folder:
        try:
            kaggle("datasets", "download", dataset, "-f", parcel.label, "-p", folder, patience=patience)
        except KaggleError:
            return False
        files = list(Path(folder).iterdir())
        return len(files) == 1 and sha256_file(files[0]) == wanted


def upload(package: Path, settings: Package, commit: str, limit: float, patience: Patience) -> int:
    """Makes the package the current version of the dataset that `settings` names, and returns the version's number.

    Its bases come first, each to a dataset of its own. Waits up to `limit` seconds until a version is ready. An upload
    that was interrupted goes on where it stopped.

    Raises: PodiumError where files do not arrive, Kaggle refuses, or the version does not become ready in time.
    """
    whole = Parcel("package", content_hash(package), MANIFEST, partial(stage_upload, package))
    for base, digest in bases_of(package).items():
        apart = replace(settings, slug=base_slug(digest), title=f"Podium base {digest[:16]}")
        _bring(Parcel("base", digest, BASE, partial(stage_base, package, base)), apart, commit, limit, patience)
    return _bring(whole, settings, commit, limit, patience)


def _bring(parcel: Parcel, settings: Package, commit: str, limit: float, patience: Patience) -> int:
    dataset, wanted = f"{settings.owner}/{settings.slug}", parcel.digest
    remote = look_up(dataset, patience)
    if remote and up_to_date(dataset, remote, parcel, patience):
        print(f"dataset {dataset}: version {remote.current} holds this {parcel.what}, nothing to upload", flush=True)
        return remote.current if remote.state == "ready" else _wait_ready(dataset, remote.current, limit, patience)
    for stale in (STATE_FOLDER / "upload").glob("*"):
        if stale.name != wanted[:16]:
            shutil.rmtree(stale)
    folder = parcel.stage(STATE_FOLDER / "upload" / wanted[:16])
    write_metadata(folder, settings)
    if parcel.label == MANIFEST and RUN_TIMINGS.is_file():
        shutil.copyfile(RUN_TIMINGS, folder / RUN_TIMINGS.name)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"dataset {dataset}: uploading {size:.1f} MB", flush=True)
    _send(dataset, folder, remote, f"podium {wanted} commit {commit}", patience)
    write_json(INCOMPLETE, [pair for pair in _incomplete() if pair != [dataset, wanted]])
    version = _wait_ready(dataset, remote.current + 1 if remote else 1, limit, patience)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return version


def _send(dataset: str, folder: Path, remote: Remote | None, notes: str, patience: Patience) -> None:
    lost: list[str] = []

    def judge(printed: str) -> str | None:
        for line in printed.splitlines():
            if re.match(NOT_ALL, line):
                lost.append(line)
                return f"{line}; the version would lack it"
            if "creation error:" in line:
                return line
        return None if "is being created" in printed else f"unexpected answer: {printed.strip()[-300:]}"

    def finished() -> bool:
        now = None if lost else look_up(dataset, patience)
        return now is not None and (remote is None or now.notes == notes)

    which = ("create", "-p", str(folder)) if remote is None else ("version", "-p", str(folder), "-m", notes)
    command = ("datasets", *which, "--keep-tabular")
    try:
        kaggle(*command, patience=patience, judge=judge, stop_at=NOT_ALL, echo=True, finished=finished)
    except KaggleError as error:
        if lost:
            # Whether the CLI was stopped before it made the version is not certain.
            write_json(INCOMPLETE, [*_incomplete(), [dataset, notes.split()[1]]])
        if lost and error.status is not None and 400 <= error.status < 500:
            # The upload's address has expired; the CLI would try it again for days.
            shutil.rmtree(STATE_FOLDER / "tmp" / ".kaggle", ignore_errors=True)
        raise


def _wait_ready(dataset: str, version: int, limit: float, patience: Patience) -> int:
    """Waits until `version` or a later one is the current version and ready to be mounted; returns its number."""

    def look() -> tuple[str, int | None]:
        now = look_up(dataset, patience)
        if now is None:
            return "not there yet", None
        if now.state in ("failed", "deleted"):
            page = f"https://www.kaggle.com/datasets/{dataset}"
            raise PodiumError(f"dataset {dataset}: Kaggle says {now.state}; see {page}")
        if now.state == "ready" and now.current < version:
            return f"version {version} is not there yet", None
        return now.state, now.current if now.state == "ready" else None

    return wait(f"dataset {dataset}", look, limit, patience.poll)


def _incomplete() -> list[list[str]]:
    return read_json(INCOMPLETE) if INCOMPLETE.is_file() else []
