"""Everything that decides a member's training, resolved into one small file: artifacts/start/<member>.json.

Its fold models depend on this file and the data alone, so that a changed setting or line of code retrains exactly the
members that it touches, and a comment retrains nothing.

python -m stages.start --member words
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from pipeline.competitions.task import Competition
from pipeline.config import External, Params
from pipeline.errors import PodiumError, nearest
from pipeline.files import sha256_file
from pipeline.imports import fingerprint, libraries

SHARED = ("stages/finetune.py", "pipeline/training/fold.py", "pipeline/inference/predict.py")
"""What every kind's fold goes through, counted without the kinds that it calls."""


def resolve(name: str, params: Params, competition: Competition) -> dict[str, Any]:
    """The contents of start/<name>.json: settings with defaults, competition, threads, code and library versions.

    Raises: PodiumError for an unknown member, or an external member whose file is missing.
    """
    if name not in params.members:
        raise PodiumError(f'params.yaml: members: no member "{name}"{nearest(name, params.members)}')
    member = params.members[name]
    module = f"pipeline.training.{member.kind}"
    resolved = {
        "member": name,
        "settings": member.model_dump(mode="json"),
        "competition": asdict(competition),
        "threads": params.threads,
        "code": fingerprint(module, alone=SHARED),
        "libraries": {library: _version(library) for library in libraries(module)},
    }
    if isinstance(member, External):
        resolved["file"] = _content(Path(member.file), name)
    return resolved


def _content(file: Path, member: str) -> str:
    if not file.is_file():
        raise PodiumError(f"{file}: no such file; members.{member}.file in params.yaml names it")
    return sha256_file(file)


def _version(library: str) -> str:
    """The installed version of the distribution that provides the import name `library`."""
    try:
        return version(packages_distributions().get(library, [library])[0])
    except PackageNotFoundError:
        raise PodiumError(f"{library} is imported by Podium but not installed; run `make setup`") from None
