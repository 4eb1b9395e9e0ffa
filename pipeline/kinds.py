"""The kinds of members: what the rest of the code asks about one, and where its own code is. Standard library alone.

A kind's modules are named as entry points ("module:object") and imported when they are asked for: each kind brings
libraries that the others do without, and the package ships the modules of its members' kinds alone. A new kind is a row
here, its settings, its training and its model; see docs/extending.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol, cast

from pipeline.errors import PodiumError, nearest
from pipeline.section import from_json

if TYPE_CHECKING:
    from pipeline.data.split import Split
    from pipeline.members.context import Run, Start
    from pipeline.settings.member import MemberSettings

HUB = ("anyio", "h11", "httpcore2", "httpx2", "huggingface-hub", "truststore")
"""transformers imports huggingface-hub, and that its HTTP client, also where nothing is ever downloaded."""


class Trains(Protocol):
    """What trains one fold model."""

    def __call__(self, split: Split, start: Start, folder: Path, run: Run) -> dict[str, Any] | None:
        """Trains on `split.train` and saves the model into `folder`.

        Returns the record of the run (see pipeline/members/finetune.py), or None where a kind keeps none.
        """


@dataclass(frozen=True)
class Kind:
    """One kind of member."""

    name: str
    place: int
    """On the ladder: the cheaper a kind is to ask, the earlier its members come."""
    settings: str
    """Entry point of its settings, a frozen dataclass on MemberSettings."""
    trainer: str
    """Entry point of what trains a fold model: a Trains."""
    opener: str
    """Entry point of what opens a fold model; see pipeline/inference/predict.py."""
    network: bool = False
    """It fine-tunes a network on a backbone, and runs on a GPU where there is one."""
    shared_base: bool = False
    """Its fold models are adapters: the backbone's weights travel beside them, once."""
    knows_every_row: bool = True
    """It answers any row; else only those whose ids its file holds, and it cannot be trained."""
    wheels: tuple[str, ...] = ()
    """Libraries that the kernel brings along for it, beside those of every package."""
    attention: float = 1.0
    """What attention costs, in units of plain attention."""

    def settings_class(self) -> type[MemberSettings]:
        """Imports and returns the class of its settings."""
        return cast("type[MemberSettings]", resolve_name(self.settings))

    def train(self) -> Trains:
        """Imports and returns what trains a fold model."""
        return cast(Trains, resolve_name(self.trainer))

    def modules(self) -> tuple[str, str]:
        """Returns the modules that a package with such a member needs."""
        return self.settings.split(":")[0], self.opener.split(":")[0]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "tabular",
            place=0,
            settings="pipeline.settings.tabular:Tabular",
            trainer="pipeline.members.tabular:train",
            opener="pipeline.models.tabular.model:load_tabular",
        ),
        Kind(
            "encoder",
            place=1,
            settings="pipeline.settings.encoder:Encoder",
            trainer="pipeline.members.encoder:train",
            opener="pipeline.inference.network_member:NetworkMember",
            network=True,
            wheels=(*HUB, "tokenizers", "transformers"),
            attention=3.0,  # DeBERTa's has two more terms
        ),
        Kind(
            "decoder",
            place=2,
            settings="pipeline.settings.decoder:Decoder",
            trainer="pipeline.members.decoder:train",
            opener="pipeline.inference.network_member:NetworkMember",
            network=True,
            shared_base=True,
            wheels=(*HUB, "accelerate", "bitsandbytes", "peft", "tokenizers", "transformers"),
        ),
        Kind(
            "external",
            place=3,
            settings="pipeline.settings.external:External",
            trainer="pipeline.members.external:train",
            opener="pipeline.models.external:load_external",
            knows_every_row=False,
        ),
    )
}


def kind_of(name: str, where: str = "kind") -> Kind:
    """Returns the kind of that name.

    Raises: PodiumError, which begins with `where`, for one that does not exist.
    """
    if name not in KINDS:
        raise PodiumError(f"{where}: expected one of {', '.join(KINDS)}, found {name}{nearest(str(name), KINDS)}")
    return KINDS[name]


def settings_from_json(value: dict[str, Any], where: str = "settings: kind") -> MemberSettings:
    """Returns the settings of a member, from what JSON keeps of them.

    Raises: PodiumError for an unknown kind or key.
    """
    return from_json(kind_of(value.get("kind", ""), where).settings_class(), value)
