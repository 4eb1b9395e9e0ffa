"""Says what the commands that act on the outside would send, for --dry-run: nothing is contacted or written."""

from __future__ import annotations

import json
import shlex

from pipeline.artifacts import DATASET_METADATA, MANIFEST
from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.files import read_json
from pipeline.kaggle.credentials import find_credentials
from pipeline.kaggle.dataset import content_hash
from pipeline.kaggle.publish import PACKAGE, check_package, submitted_as, with_owner
from pipeline.kaggle.push import KERNEL_METADATA, filled_metadata, push_command
from pipeline.kaggle.submit import already_submitted, check_ready, description, submit_command
from pipeline.ledger.git import changed_files, commit_of, numbered_tags
from pipeline.package.bases import base_slug, bases_of


def preview_publish(settings: Package, competition: Competition) -> str:
    """Returns the files, metadata and commands of `publish`. Raises: PodiumError where there is no fitting package."""
    settings = with_owner(settings, find_credentials())
    check_package()
    wanted = content_hash(PACKAGE)
    files = read_json(PACKAGE / MANIFEST)["files"]
    lines = [f"dataset {settings.owner}/{settings.slug}, unless its notes say: podium {wanted}"]
    bases = bases_of(PACKAGE)
    for entry in sorted(path for path in PACKAGE.iterdir() if path.name != DATASET_METADATA):
        inside = [
            file["bytes"]
            for name, file in files.items()
            if name.startswith(f"{entry.name}/") and not name.startswith(tuple(f"{base}/" for base in bases))
        ]
        size = sum(inside) if entry.is_dir() else entry.stat().st_size
        name = f"{entry.name}.zip ({len(inside)} files)" if entry.is_dir() else entry.name
        lines.append(f"  {name}: {size / 1e6:.2f} MB")
    for base, digest in bases.items():
        size = sum(file["bytes"] for name, file in files.items() if name.startswith(f"{base}/"))
        lines.append(f"dataset {settings.owner}/{base_slug(digest)}, once: {base}, {size / 1e6:.2f} MB")
    metadata = json.dumps(filled_metadata(settings, competition), indent=2, ensure_ascii=False)
    lines += [f"{KERNEL_METADATA}:", metadata, f"kaggle {shlex.join(push_command(settings))}"]
    if changed := changed_files():
        lines.append(f"but first: {len(changed)} files are not committed ({', '.join(changed[:4])})")
    return "\n".join(lines)


def preview_submit(settings: Package, competition: Competition) -> str:
    """Returns the command of `submit`, or says that there is nothing left to submit.

    Raises: PodiumError where nothing fitting has been published.
    """
    record, content = check_ready(with_owner(settings, find_credentials()), competition)
    if known := submitted_as(content):
        return f"nothing: {already_submitted(record, known)}"
    tag = f"sub-{max(numbered_tags('sub'), default=0) + 1}"
    return "kaggle " + shlex.join(submit_command(competition, record, description(tag, commit_of("HEAD"))))
