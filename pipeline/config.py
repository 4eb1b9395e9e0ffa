"""params.yaml as frozen objects. Every key is described here; an unknown key or a wrong type is an error.

python -m pipeline.config        # checks params.yaml and prints it with every default filled in
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.errors import nearest
from pipeline.settings.backbones import Backbone, NoBackbone
from pipeline.settings.members import Decoder, Encoder, External, Tabular
from pipeline.settings.recipes import PRETRAINED
from pipeline.settings.section import Section
from pipeline.validation import read_yaml, validated

Member = Annotated[Tabular | External | Encoder | Decoder, Field(discriminator="kind")]


class Data(Section):
    path: str
    """Folder with train.csv, test.csv and sample_submission.csv."""
    competition: str
    """A name in pipeline/competitions/, or a path to a YAML file of the same form."""


class Demo(Section):
    train_rows: int = Field(ge=10)
    test_rows: int = Field(ge=1)
    seed: int


class Folds(Section):
    ids: tuple[int, ...] = Field(min_length=2)
    """0, 1, ... one number per fold; a list, because DVC makes a stage of each."""
    holdout: float = Field(ge=0.0, le=0.5)
    """Share of the rows that no member and no stacker is trained on; 0 for none."""
    seed: int

    @field_validator("ids")
    @classmethod
    def _count_up(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        if list(ids) != list(range(len(ids))):
            raise ValueError(f"expected {list(range(len(ids)))}")
        return ids


class Stack(Section):
    candidates: tuple[Literal["mean", "greedy", "weights", "logistic", "lightgbm"], ...] = Field(min_length=1)
    """From the simplest to the most flexible; the simplest within one paired standard error of the best is chosen."""
    seed: int


class Package(Section):
    owner: str
    """Your Kaggle user name."""
    slug: str = Field(min_length=6, max_length=50, pattern=r"^[a-z0-9-]+$")
    """Name of the Kaggle dataset that holds the package."""
    title: str = Field(min_length=6, max_length=50)
    budget_seconds: int = Field(ge=60)
    """The competition's run-time limit, from the kernel's process start."""


class Guard(Section):
    """Watches every run of a network; see pipeline/training/guard.py."""

    max_attempts: int = Field(default=3, ge=0)
    """So often a run that learns nothing is begun, each time with another head, half the rate and more warmup; 0: no
    run is watched."""
    on_collapse: Literal["drop", "fail"] = "drop"
    """What happens to a member with a fold model that is no better than the prior: it is left out of stack and package
    with a warning, or the build fails."""


NAME = r"^[a-z][a-z0-9_]*$"


class Params(Section):
    """The whole of params.yaml."""

    data: Data
    demo: Demo
    folds: Folds
    threads: int = Field(ge=1)
    """CPU threads of every stage; results are the same for a given number."""
    backbones: dict[Annotated[str, Field(pattern=NAME)], Backbone]
    """By name; `none` (source: none) is the one that members without a network name."""
    members: dict[Annotated[str, Field(pattern=NAME)], Member] = Field(min_length=1)
    guard: Guard = Guard()
    stack: Stack
    refit: bool = False
    """Train one more model per member on every row, holdout included, and let it join the kernel's average."""
    package: Package

    @model_validator(mode="after")
    def _members_train_known_folds(self) -> Params:
        for name, member in self.members.items():
            unknown = sorted(set(member.folds or ()) - set(self.folds.ids))
            if unknown:
                raise ValueError(f"members.{name}.folds: {unknown} not in folds.ids {list(self.folds.ids)}")
        return self

    @model_validator(mode="after")
    def _members_name_known_backbones(self) -> Params:
        for name, member in self.members.items():
            if member.backbone not in self.backbones:
                known = nearest(member.backbone, self.backbones)
                raise ValueError(f'members.{name}.backbone: no backbone "{member.backbone}"{known}')
            source = self.backbones[member.backbone].source
            if isinstance(member, Encoder | Decoder) == (source == "none"):
                raise ValueError(f"members.{name}: kind {member.kind} cannot use a backbone of source {source}")
            if isinstance(member, Encoder | Decoder) and member.recipe in PRETRAINED:
                backbone = self.backbones[member.backbone]
                if isinstance(backbone, NoBackbone) or not backbone.pretrain.epochs:
                    raise ValueError(
                        f"members.{name}.recipe: {member.recipe} needs pretraining on the competition's text: "
                        f"set backbones.{member.backbone}.pretrain.epochs"
                    )
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The checked contents of params.yaml.

    Raises: PodiumError that names the key, with the nearest known one where it is unknown.
    """
    return validated(Params, read_yaml(path), path.name)


if __name__ == "__main__":
    from pipeline.stage import stage

    with stage("config"):
        print(load_params().model_dump_json(indent=2))
