"""What stands in every fold model's folder: member.json, with its kind, classes and settings. Needs no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import MEMBER
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.kinds import Kind, kind_of, settings_from_json
from pipeline.settings.member import MemberSettings

FORMAT = 2
"""Raised whenever members saved by older code can no longer be read."""


@dataclass(frozen=True)
class SavedMember:
    """One fold model's member.json."""

    kind: Kind
    trained: bool
    """Whether there is a model; a member may train some folds only."""
    settings: MemberSettings | None
    """None where there is no model."""
    facts: dict[str, Any]
    """What else its kind has kept."""


def save_member(folder: Path, settings: MemberSettings, competition: Competition, **facts: Any) -> None:
    """Writes member.json for a model that was trained, with what its kind wants to keep."""
    about = {"kind": settings.kind, "trained": True, "format": FORMAT, "classes": competition.outputs}
    write_json(folder / MEMBER, about | {"settings": asdict(settings), "facts": facts})


def save_untrained(folder: Path, settings: MemberSettings) -> None:
    """Writes member.json where a member does not train the fold."""
    write_json(folder / MEMBER, {"kind": settings.kind, "trained": False})


def read_member(folder: Path, competition: Competition | None = None) -> SavedMember:
    """Returns what member.json tells of the fold model in `folder`.

    Raises: PodiumError where it is missing or broken, or where its format or classes are not those of `competition`.
    """
    file = folder / MEMBER
    try:
        about: dict[str, Any] = read_json(file)
        kind, trained = kind_of(about["kind"], f"{file}: kind"), about["trained"]
        if not trained:
            return SavedMember(kind, False, None, {})
        expected = {"format": FORMAT} | ({"classes": list(competition.outputs)} if competition else {})
        for key, value in expected.items():
            if about.get(key) != value:
                raise PodiumError(f"{file}: {key}: expected {value}, found {about.get(key)}")
        return SavedMember(kind, True, settings_from_json(about["settings"]), about["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PodiumError(f"{file}: expected a whole file of a fold model, found {error!r}") from error
