"""What a fold's training gets beside its rows: what decides it (artifacts/start/<member>.json), and its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.kinds import settings_from_json
from pipeline.section import from_json
from pipeline.settings.member import MemberSettings
from pipeline.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Source:
    """What an auxiliary task's rows are."""

    competition: Competition
    """With the classes and the scale that its training file gives."""
    data: str
    """Content hash of its rows."""


@dataclass(frozen=True)
class FromElsewhere:
    """What the rows of a source of `extra` are."""

    labels: str
    weight: float
    confidence: float
    data: str
    """Hash of what the stage `extra` has made of it."""


@dataclass(frozen=True)
class Start:
    """Everything that decides a member's training; pipeline/members/start.py resolves it."""

    member: str
    """Its name in params.yaml."""
    settings: MemberSettings
    competition: Competition
    threads: int
    code: str = ""
    """Fingerprint of the code that its kind uses."""
    kind: Mapping[str, Any] = field(default_factory=dict)
    """What decides of its row in pipeline.kinds."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Import name -> installed version."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Setting -> hash of the file of the user's that it names."""
    backbone: str = ""
    """Content hash of its backbone, where it has a network."""
    max_attempts: int = 0
    """How often the guard begins a run; 0 where none watches."""
    auxiliary: Mapping[str, Source] = field(default_factory=dict)
    """By name, where its settings have auxiliary tasks."""
    extra: Mapping[str, FromElsewhere] = field(default_factory=dict)
    """By name, the sources that its settings name."""


def read_start(file: Path) -> Start:
    """Returns the contents of a start file: what `dataclasses.asdict` and JSON have made of a Start.

    Raises: PodiumError that names the file, for a key that is missing or unknown.
    """
    value: dict[str, Any] = read_json(file)
    try:
        settings = settings_from_json(value.get("settings", {}))
        competition = from_json(Competition, value.get("competition", {}))
        return from_json(Start, value | {"settings": settings, "competition": competition})
    except PodiumError as error:
        raise PodiumError(f"{file}: {error}") from None


@dataclass(frozen=True)
class Run:
    """One fold model's run."""

    label: str
    """For people: `words fold 0`."""
    artifacts: Artifacts
    """Where backbones lie."""
    checkpoint: Checkpoint
    quick: bool = False
    """A look at a few rows: they are printed as the network reads them."""

    @property
    def token_cache(self) -> Path | None:
        """Returns the folder of token ids (pipeline.data.tokens); None for a quick look, which keeps nothing."""
        return None if self.quick else self.artifacts.tokens
