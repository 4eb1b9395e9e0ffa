"""What the commands that act on the outside would send, for --dry-run: nothing is contacted, nothing is written."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.files import read_json
from pipeline.kaggle.credentials import find_credentials
from pipeline.kaggle.dataset import content_hash
from pipeline.kaggle.publish import PACKAGE, PLACEHOLDER, check_package, submitted_as
from pipeline.kaggle.push import METADATA, filled_metadata
from pipeline.kaggle.submit import command, description, ready, submitted_already
from pipeline.ledger.git import changed_files, commit_of, numbered_tags
from pipeline.package.manifest import MANIFEST
from pipeline.package.manifest import METADATA as DATASET_METADATA


def named(settings: Package) -> Package:
    """`settings` with the user's name where it is known."""
    found = find_credentials()
    known = settings.owner == PLACEHOLDER and found and found.username
    return replace(settings, owner=found.username) if found and known else settings


def preview_publish(settings: Package, competition: Competition) -> str:
    """The files, the metadata and the commands of `publish`. Raises: PodiumError where there is no fitting package."""
    settings = named(settings)
    check_package()
    wanted = content_hash(PACKAGE)
    files = read_json(PACKAGE / MANIFEST)["files"]
    lines = [f"dataset {settings.owner}/{settings.slug}, unless its notes say: podium {wanted}"]
    for entry in sorted(path for path in PACKAGE.iterdir() if path.name != DATASET_METADATA):
        inside = [file["bytes"] for name, file in files.items() if name.startswith(f"{entry.name}/")]
        size = sum(inside) if entry.is_dir() else entry.stat().st_size
        name = f"{entry.name}.zip ({len(inside)} files)" if entry.is_dir() else entry.name
        lines.append(f"  {name}: {size / 1e6:.2f} MB")
    metadata = json.dumps(filled_metadata(settings, competition), indent=2, ensure_ascii=False)
    lines += [f"{METADATA}:", metadata, f"kaggle kernels push -p {METADATA.parent} -t {settings.budget_seconds}"]
    if changed := changed_files():
        lines.append(f"but first: {len(changed)} files are not committed ({', '.join(changed[:4])})")
    return "\n".join(lines)


def preview_submit(settings: Package, competition: Competition) -> str:
    """The command of `submit`, if there is something to submit. Raises: PodiumError where nothing fitting is there."""
    record, content = ready(named(settings), competition)
    if known := submitted_as(content):
        return f"nothing: {submitted_already(record, known)}"
    tag = f"sub-{max(numbered_tags('sub'), default=0) + 1}"
    return "kaggle " + shlex.join(command(competition, record, description(tag, commit_of("HEAD"))))
