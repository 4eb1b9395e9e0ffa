"""params.yaml as frozen objects. Every key is described here; an unknown key or a wrong type is an error.

python -m pipeline.config        # checks params.yaml and prints it with every default filled in
"""

from __future__ import annotations

import json
from dataclasses import asdict, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field

from pipeline.errors import nearest
from pipeline.kinds import KINDS
from pipeline.machines import known_machine
from pipeline.section import Checked, Limits, Prepared, section
from pipeline.settings.backbones import Backbone, NoBackbone
from pipeline.settings.encoder import Encoder
from pipeline.settings.external import External
from pipeline.settings.extra import ExtraRows
from pipeline.settings.finetuning import NetworkSettings
from pipeline.settings.member import MemberSettings
from pipeline.settings.optimisation import Seed
from pipeline.settings.paths import Name, SomePath, apart
from pipeline.settings.recipes import PRETRAINED, with_recipe
from pipeline.validation import read_yaml, validated


def _over_its_recipe(member: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(member.get("kind", ""))
    return with_recipe(member) if kind and kind.network else member


if TYPE_CHECKING:
    Member = MemberSettings
else:
    _Settings = Union[tuple(kind.settings_class() for kind in KINDS.values())]  # noqa: UP007
    Member = Annotated[Annotated[_Settings, Field(discriminator="kind")], Prepared(_over_its_recipe)]


@section
class Data:
    path: Annotated[str, Checked(apart)]
    """Folder with train.csv, test.csv and sample_submission.csv."""
    competition: SomePath
    """A name in pipeline/competitions/, or a path to a YAML file of the same form."""


@section
class Demo:
    train_rows: Annotated[int, Limits(ge=10)]
    test_rows: Annotated[int, Limits(ge=1)]
    seed: Seed


def _count_up(ids: tuple[int, ...]) -> tuple[int, ...]:
    if list(ids) != list(range(len(ids))):
        raise ValueError(f"expected {list(range(len(ids)))}")
    return ids


@section
class Folds:
    ids: Annotated[tuple[int, ...], Limits(min_length=2, max_length=100), Checked(_count_up)]
    """0, 1, ... one number per fold; a list, because DVC makes a stage of each."""
    holdout: Annotated[float, Limits(ge=0.0, le=0.5)]
    """Share of the rows that no member and no stacker is trained on; 0 for none."""
    seed: Seed


@section
class Stack:
    candidates: Annotated[
        tuple[Literal["mean", "greedy", "weights", "logistic", "lightgbm"], ...], Limits(min_length=1)
    ]
    """From the simplest to the most flexible; the simplest within one paired standard error of the best is chosen."""
    seed: Seed


@section
class Package:
    owner: Annotated[str, Limits(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    """Your Kaggle user name."""
    slug: Annotated[str, Limits(min_length=6, max_length=50, pattern=r"^[a-z0-9-]+$")]
    """Name of the Kaggle dataset that holds the package."""
    title: Annotated[str, Limits(min_length=6, max_length=50)]
    budget_seconds: Annotated[int, Limits(ge=60)]
    """The competition's run-time limit, from the kernel's process start."""
    machine: Annotated[str, Checked(known_machine)] = "t4x2"
    """Kaggle's machine for the kernel: t4x2, l4x4, l4, h100, rtx_pro_6000 or cpu; see pipeline/machines.py."""
    average: bool = False
    """Adds to each network's fold models their average, one model, where it loses less than one of them on the
    holdout; the kernel asks it first. See pipeline/package/averages.py."""
    rehearse_rows: Annotated[int, Limits(ge=0)] = 0
    """On so many rows the pushed kernel runs once more after its dress rehearsal, in the scored rerun's manner; that
    takes GPU hours of the week's. 0: it does not."""


@section
class Guard:
    """Watches every run of a network; see pipeline/training/guard.py."""

    max_attempts: Annotated[int, Limits(ge=0)] = 3
    """So often a run that learns nothing is begun, each time with another head, half the rate and more warmup; 0: no
    run is watched."""
    on_collapse: Literal["drop", "fail"] = "drop"
    """What happens to a member with a fold model that is no better than the prior: it is left out of stack and package
    with a warning, or the build fails."""


@section
class Params:
    """The whole of params.yaml."""

    data: Data
    demo: Demo
    folds: Folds
    threads: Annotated[int, Limits(ge=1, le=1024)]
    """CPU threads of every stage; results are the same for a given number."""
    backbones: dict[Name, Annotated[Backbone, Field(discriminator="source")]]
    """By name; `none` (source: none) is the one that members without a network name."""
    members: Annotated[dict[Name, Member], Limits(min_length=1)]
    """By name. Once params.yaml is read, `students` are among them: a section of their own is for DVC, whose graph has
    to know who is trained before whom."""
    students: dict[Name, Member] = field(default_factory=dict)
    """Members with `teachers`, which are trained after those of `members`."""
    extra: dict[Name, ExtraRows] = field(default_factory=dict)
    """Rows from elsewhere, by name; a member learns those that its own `extra` names."""
    guard: Guard = Guard()
    stack: Stack
    refit: bool = False
    """Train one more model per member on every row, holdout included, and let it join the kernel's average."""
    package: Package

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", self.members | self._checked_students())
        for name, member in self.members.items():
            unknown = sorted(set(member.folds or ()) - set(self.folds.ids))
            if unknown:
                raise ValueError(f"members.{name}.folds: {unknown} not in folds.ids {list(self.folds.ids)}")
            self._check_extra(name, member)
            if member.backbone not in self.backbones:
                known = nearest(member.backbone, self.backbones)
                raise ValueError(f'members.{name}.backbone: no backbone "{member.backbone}"{known}')
            source = self.backbones[member.backbone].source
            if KINDS[member.kind].network == (source == "none"):
                raise ValueError(f"members.{name}: kind {member.kind} cannot use a backbone of source {source}")
            if isinstance(member, NetworkSettings) and member.recipe in PRETRAINED:
                backbone = self.backbones[member.backbone]
                if isinstance(backbone, NoBackbone) or not backbone.pretrain.epochs:
                    raise ValueError(
                        f"members.{name}.recipe: {member.recipe} needs pretraining on the competition's text: "
                        f"set backbones.{member.backbone}.pretrain.epochs"
                    )

    @property
    def watched(self) -> tuple[Path, ...]:
        """The user's folders, in which DVC reads all that lies there."""
        return Path(self.data.path), Path("external")

    def _check_extra(self, name: str, member: Member) -> None:
        """Raises ValueError where a member cannot learn one of the sources that it names."""
        where = f"{'students' if name in self.students else 'members'}.{name}.extra"
        taught = isinstance(member, NetworkSettings) and member.teachers
        for source in member.extra:
            if source not in self.extra:
                raise ValueError(f'{where}: no source "{source}" under extra{nearest(source, self.extra)}')
            labels = self.extra[source].labels
            if labels == "none" and not taught:
                raise ValueError(
                    f"{where}: {source} has no labels: only a student learns it, from its teachers' answers"
                )
            if labels != "given" and member.kind == "tabular":
                raise ValueError(f"{where}: {source} has labels: {labels}; a tabular member learns given ones alone")
            for teacher in taught.members if taught else ():
                if not KINDS[self.members[teacher].kind].knows_every_row:
                    raise ValueError(f"{where}: its teacher {teacher} is a file, which knows no row of {source}")

    def _checked_students(self) -> dict[str, Member]:
        """Returns `students`.

        Raises: ValueError for one without teachers, and for a teacher that does not exist, is itself a student, has not
        trained a fold of the student's, or has no answers that its student may see.
        """
        teachers = {name: each for name, each in self.members.items() if name not in self.students}
        for name, each in teachers.items():
            if isinstance(each, NetworkSettings) and each.teachers:
                raise ValueError(f"members.{name}.teachers: who learns from others is an entry of students")
        for name, each in self.students.items():
            if self.members.get(name, each) is not each:
                raise ValueError(f"students.{name}: there is a member of that name")
            if not isinstance(each, NetworkSettings) or not each.teachers:
                raise ValueError(f"students.{name}: expected an encoder or decoder with teachers, found {each.kind}")
            for teacher in each.teachers.members:
                where = f"students.{name}.teachers.members"
                if teacher not in teachers:
                    found = "is a student" if teacher in self.students else f"is no member{nearest(teacher, teachers)}"
                    raise ValueError(f"{where}: {teacher} {found}")
                its = teachers[teacher]
                lacking = [fold for fold in self.folds.ids if each.trains(fold) and not its.trains(fold)]
                if lacking:
                    raise ValueError(f"{where}: {teacher} does not train the folds {lacking} of {name}")
                if isinstance(its, External) and len(its.fold_files or ()) != len(self.folds.ids):
                    raise ValueError(
                        f"{where}: {teacher} is external: expected members.{teacher}.fold_files, one for each of "
                        f"folds.ids, found {len(its.fold_files or ())}; its out-of-fold answers have seen the fold"
                    )
                if each.teachers.cosine and not _comparable(each, its):
                    raise ValueError(
                        f"students.{name}.teachers.cosine: needs pooled states of the same sequences, from a network "
                        f"of ours with the same input and kind of head, found {teacher}"
                    )
        return self.students


def _comparable(student: NetworkSettings, teacher: Member) -> bool:
    """Returns whether both networks pool the same sequences of a row."""
    return (
        isinstance(teacher, NetworkSettings)
        and not (isinstance(teacher, Encoder) and teacher.network)
        and teacher.input == student.input
        and (teacher.head == "tokens") == (student.head == "tokens")
    )


def member_settings(given: dict[str, Any], source: str = "member") -> MemberSettings:
    """Returns the checked settings of one member, from an entry of `members` as YAML gives it.

    Raises: PodiumError that names the key.
    """
    return validated(Member, given, source)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The checked contents of params.yaml.

    Raises: PodiumError that names the key, with the nearest known one where it is unknown.
    """
    return validated(Params, read_yaml(path), path.name)


if __name__ == "__main__":
    from pipeline.stage import stage

    with stage("config"):
        print(json.dumps(asdict(load_params()), indent=2))
