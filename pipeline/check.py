"""One look at the whole plan before anything is trained: what a late stage would refuse is said here, in seconds.

python -m pipeline.check        # what `make check` does, and `make repro` before all else

Each check is a function in CHECKS. What it finds is one line that names the key: an error ends the build before it
begins, a warning does not.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import Params, load_params
from pipeline.data.folds import check_stack_parts, part_rows
from pipeline.errors import PodiumError
from pipeline.files import check_watched
from pipeline.ingest.prepare import glance, ids_of
from pipeline.jobs.graph import stale
from pipeline.kinds import KINDS
from pipeline.ledger.history import dvc_repository
from pipeline.machines import CARDS, MACHINES
from pipeline.members.beside.extra import check_form
from pipeline.members.external import check_ids, read_predictions
from pipeline.members.start import check_network
from pipeline.models.backbones.foresight import foreseen
from pipeline.package.wheels import find_wheels
from pipeline.resources import (
    BYTES,
    cards,
    devices_asked,
    disk_needed,
    free_disk,
    memory,
    memory_needed,
    pretraining_memory,
)
from pipeline.settings.backbones import NoBackbone
from pipeline.settings.external import External
from pipeline.settings.finetuning import NetworkSettings
from pipeline.stage import stage
from pipeline.validation import read_yaml

GLANCE = 200
"""Rows of each file that are looked at before `prepare` reads them all."""
GENERATED = Path("data/demo")
"""The folder that the stage `demo` makes."""
EARLY = ("demo", "prepare", "folds")
"""Stages whose outputs say more than params.yaml, where they are up to date."""
SANE_SECONDS = (300, 12 * 3600)
"""Below it a kernel hardly opens its networks; Kaggle ends every notebook after twelve hours."""
WHEELS = Path(".venv/wheels")
SECTIONS = ("students", "extra")
"""Of params.yaml; they may be empty, but DVC's graph reads them."""


@dataclass
class Findings:
    """What was looked at, and what is wrong."""

    looked: list[tuple[str, str, str]] = field(default_factory=list)
    """Name of a check, what it looked at, and in a word what it found."""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Makes a PodiumError of the body one finding among others."""
        try:
            yield
        except PodiumError as error:
            if str(error) not in self.errors:
                self.errors.append(str(error))


@dataclass(frozen=True)
class Plan:
    """What is about to be built."""

    params: Params
    competition: Competition
    artifacts: Artifacts
    fresh: frozenset[str]
    """Stages whose outputs are here and up to date, of EARLY."""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Backbone -> what is known of it."""

    @property
    def data(self) -> Path:
        return Path(self.params.data.path)

    @property
    def to_be_generated(self) -> bool:
        return self.data == GENERATED and "demo" not in self.fresh

    @cached_property
    def folds_in_common(self) -> list[int]:
        """The folds that every member trains: the stack learns from their rows alone."""
        members = self.params.members.values()
        return [fold for fold in self.params.folds.ids if all(member.trains(fold) for member in members)]


def check_data(plan: Plan, found: Findings) -> str:
    """The headers of the competition's files and their first rows; nothing where they have been read as a whole."""
    if plan.to_be_generated:
        return f"{plan.data}: is generated first"
    if "prepare" in plan.fresh:
        return f"{plan.data}: read as a whole by `prepare`"
    if not plan.data.is_dir():
        raise PodiumError(f"params.yaml: data.path: {plan.data}: no such folder")
    glance(plan.data, plan.competition, GLANCE)
    return f"{plan.data}: columns and first {GLANCE} rows of each file"


def check_members(plan: Plan, found: Findings) -> str:
    """Whether each member's settings are possible: with its backbone, its competition, its files under external/."""
    for name, member in plan.params.members.items():
        with found.going_on():
            for key, file in member.files().items():
                if not Path(file).is_file():
                    raise PodiumError(f"params.yaml: members.{name}.{key}: {file}: no such file")
            if isinstance(member, NetworkSettings):
                check_network(name, member, plan.competition, plan.facts.get(member.backbone, {}))
                _check_widths(name, member, plan)
            if isinstance(member, External):
                _check_external(name, member, plan)
    if plan.params.refit and plan.params.students:
        found.warnings.append(
            f"params.yaml: refit: {', '.join(plan.params.students)}: students are not trained on every row; their fold "
            "models answer alone"
        )
    if not any(KINDS[member.kind].knows_every_row for member in plan.params.members.values()):
        found.warnings.append(
            "params.yaml: members: all are of kind external, and know no row of a hidden test file: it gets the prior"
        )
    return ", ".join(plan.params.members)


def _check_widths(name: str, member: NetworkSettings, plan: Plan) -> None:
    """Raises PodiumError where a student's pooled states cannot be compared with a teacher's."""
    if not member.teachers or not member.teachers.cosine:
        return
    width = plan.facts.get(member.backbone, {}).get("hidden")
    for teacher in member.teachers.members:
        its = plan.facts.get(plan.params.members[teacher].backbone, {}).get("hidden")
        if None not in (width, its) and its != width:
            raise PodiumError(
                f"params.yaml: students.{name}.teachers.cosine: its pooled states have {width} numbers, those of "
                f"{teacher} {its}: leave cosine out"
            )


def _check_external(name: str, member: External, plan: Plan) -> None:
    """Raises PodiumError where the file lacks ids of the training rows, or holds no answers."""
    if plan.to_be_generated:
        return
    prepared = "prepare" in plan.fresh
    competition = plan.artifacts.competition() if prepared else glance(plan.data, plan.competition, 0)
    predictions = read_predictions(Path(member.file), competition)
    if "folds" in plan.fresh:
        wanted = [HOLDOUT, *(fold for fold in plan.params.folds.ids if member.trains(fold))]
        rows = plan.artifacts.folds().filter(pl.col("fold").is_in(wanted))
    elif member.folds is not None:
        return  # which rows it needs is not known yet
    elif prepared:
        rows = plan.artifacts.train().select("id").collect()
    else:
        rows = ids_of(plan.data / competition.train, competition).to_frame()
    check_ids(Path(member.file), predictions, rows, "the training rows")


def check_extra(plan: Plan, found: Findings) -> str:
    """Whether rows from elsewhere are here, and of the scored competition's form."""
    for name, source in plan.params.extra.items():
        with found.going_on():
            its = check_form(name, source, plan.competition)
            if not (file := Path(source.path) / its.train).is_file():
                raise PodiumError(f"params.yaml: extra.{name}.path: {file}: no such file")
        if not any(name in member.extra for member in plan.params.members.values()):
            found.warnings.append(f"params.yaml: extra.{name}: no member's `extra` names it")
    return ", ".join(plan.params.extra) or "none"


def check_backbones(plan: Plan, found: Findings) -> str:
    """The files that backbones are made of."""
    for name, backbone in plan.params.backbones.items():
        for file in () if isinstance(backbone, NoBackbone) else backbone.pretrain.files:
            if not Path(file).is_file():
                found.errors.append(f"params.yaml: backbones.{name}.pretrain.files: {file}: no such file")
    unknown = [name for name, each in plan.params.backbones.items() if each.source == "hub" and not plan.facts[name]]
    later = f"; not here yet: {', '.join(unknown)}" if unknown else ""
    return ", ".join(plan.params.backbones) + later


def check_folds(plan: Plan, found: Findings) -> str:
    """Whether there are enough groups and rows for folds, holdout and stack, and folds that all members train."""
    common, members = plan.folds_in_common, plan.params.members
    if plan.params.package.average and not plan.params.folds.holdout:
        raise PodiumError("params.yaml: package.average: expected folds.holdout above 0: only a holdout tells its loss")
    if not common:
        partial = ", ".join(f"{name} {list(each.folds)}" for name, each in members.items() if each.folds is not None)
        raise PodiumError(
            f"params.yaml: members.*.folds: no fold is trained by all ({partial}); nothing can be stacked"
        )
    asked = f"{len(plan.params.folds.ids)} folds, {len(common)} of them trained by all members"
    if "prepare" not in plan.fresh:
        return f"{asked}; groups are known after `prepare`"
    if "folds" not in plan.fresh or len(common) < len(plan.params.folds.ids):
        parts = part_rows(plan.artifacts.train(), plan.artifacts.competition(), plan.params.folds)
        check_stack_parts(parts, plan.artifacts.competition(), common)
    return asked


def check_disk(plan: Plan, found: Findings) -> str:
    """Whether weights, their copies in the cache and the tables have room."""
    needed, free = disk_needed(plan.params, plan.facts, plan.data), free_disk()
    here = 2 * sum(file.stat().st_size for file in plan.artifacts.root.rglob("*") if file.is_file())
    missing = max(needed - here, 0.0)
    if missing > free:
        raise PodiumError(
            f"the disk: about {missing / 1e9:.1f} GB are needed for the weights of {len(plan.params.members)} members "
            f"(members, folds.ids, refit in params.yaml), {free / 1e9:.1f} GB are free"
        )
    return f"about {missing / 1e9:.1f} GB more, {free / 1e9:.0f} GB free"


def check_memory(plan: Plan, found: Findings) -> str:
    """Whether each network fits where it is trained, and each backbone where it is trained further."""
    where, size = memory()
    for name, backbone in plan.params.backbones.items():
        needed = pretraining_memory(plan.facts.get(name, {}))
        if not isinstance(backbone, NoBackbone) and backbone.pretrain.epochs and needed > size:
            found.errors.append(
                f"params.yaml: backbones.{name}.pretrain: trains all weights, which takes about {needed / 1e9:.1f} GB "
                f"before any batch; the {where} has {size / 1e9:.1f} GB: set epochs to 0"
            )
    for name, member in plan.params.members.items():
        if isinstance(member, NetworkSettings):
            needed = memory_needed(member, plan.facts.get(member.backbone, {}))
            needed *= 1 if where == "GPU" else member.devices
            if needed > size:
                found.warnings.append(
                    f"params.yaml: members.{name}.backbone: {member.backbone} needs about {needed / 1e9:.1f} GB in "
                    f"training, before any batch; the {where} has {size / 1e9:.1f} GB"
                )
    return f"{size / 1e9:.0f} GB ({where})"


def check_devices(plan: Plan, found: Findings) -> str:
    """Whether this machine has a device for each process of a fold; of a cluster's it is asked when it is joined."""
    count, cores = cards(), os.cpu_count() or 1
    for key, devices in devices_asked(plan.params).items():
        if "RAY_ADDRESS" in os.environ:
            continue
        if count and devices > count:
            found.errors.append(f"{key}: expected at most {count}, the GPUs of this machine, found {devices}")
        if not count and devices > 1 and devices * plan.params.threads > cores:
            found.warnings.append(
                f"{key}: without a GPU {devices} processes of threads {plan.params.threads} share {cores} cores"
            )
    return f"GPUs: {count}" if count else "no GPU"


def check_machine(plan: Plan, found: Findings) -> str:
    """Whether each network fits on a card of the kernel's machine, in a precision with which that computes."""
    name = plan.params.package.machine
    card, key = CARDS[MACHINES[name].card], "inference.precision"
    for member, settings in plan.params.members.items():
        if not isinstance(settings, NetworkSettings):
            continue
        precision, weights = settings.inference.precision, plan.facts.get(settings.backbone, {}).get("parameters", 0)
        if (needed := weights * BYTES[precision]) > card.memory:
            found.errors.append(
                f"params.yaml: members.{member}.{key}: {settings.backbone} in {precision} takes {needed / 1e9:.1f} GB, "
                f"a card of package.machine {name} has {card.memory / 1e9:.0f} GB"
            )
        if precision == "bf16" and not card.bf16:
            found.warnings.append(
                f"params.yaml: members.{member}.{key}: the cards of package.machine {name} do not compute with bf16, "
                f"and take several times as long: set fp16"
            )
    count = MACHINES[name].count
    return f"{name}: {count} x {card.memory / 1e9:.0f} GB" if count else f"{name}: no GPU"


def check_package(plan: Plan, found: Findings) -> str:
    """The run-time limit, and the libraries that the package brings along."""
    seconds, (low, high) = plan.params.package.budget_seconds, SANE_SECONDS
    if not low <= seconds <= high:
        found.warnings.append(
            f"params.yaml: package.budget_seconds: expected the competition's limit, from {low} to {high}, "
            f"found {seconds}"
        )
    find_wheels(WHEELS, Path("requirements.lock"), {member.kind for member in plan.params.members.values()})
    return f"{seconds} seconds, wheels in {WHEELS}"


CHECKS: dict[str, Callable[[Plan, Findings], str]] = {
    "data": check_data,
    "members": check_members,
    "extra": check_extra,
    "backbones": check_backbones,
    "folds": check_folds,
    "disk": check_disk,
    "memory": check_memory,
    "devices": check_devices,
    "machine": check_machine,
    "package": check_package,
}


def look(plan: Plan) -> Findings:
    """Runs every check; one that fails does not keep the others from being run."""
    found = Findings()
    facts: dict[str, dict[str, Any]] = {name: {} for name in plan.params.backbones}
    for name, backbone in plan.params.backbones.items():
        with found.going_on():
            facts[name] = foreseen(name, backbone, plan.artifacts)
    plan = replace(plan, facts=facts)
    for name, check in CHECKS.items():
        before, at = (len(found.errors), len(found.warnings)), "–"
        with found.going_on():
            at = check(plan, found)
        after = (len(found.errors), len(found.warnings))
        word = "error" if after[0] > before[0] else "warning" if after[1] > before[1] else "fine"
        found.looked.append((name, at, word))
    return found


def fresh_stages() -> frozenset[str]:
    """Returns which of the EARLY stages are up to date, as DVC knows it.

    Raises: PodiumError where DVC does not work here, or cannot write what the stages make into its cache.
    """
    with dvc_repository() as repository:
        for folder in (Path(repository.cache.local.path), Path(repository.tmp_dir)):
            check_writable(folder)
        return frozenset(EARLY) - stale(repository, EARLY)


def check_writable(folder: Path) -> None:
    """Raises PodiumError where no file can be written below `folder`, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    for place in (folder, folder / "files" / "md5"):
        if place.exists():
            try:
                with TemporaryFile(dir=place):
                    pass
            except OSError as error:
                raise PodiumError(f"{place}: DVC must write there, and cannot: {error.strerror}") from None


def check_sections(given: Any) -> None:
    """Raises PodiumError where params.yaml lacks a section that may be empty."""
    for section in SECTIONS:
        if section not in given:
            raise PodiumError(f'params.yaml: missing key "{section}"; where there is none write `{section}: {{}}`')


def run_check() -> None:
    """Prints what was checked.

    Raises: PodiumError where params.yaml or the competition's file cannot be read; SystemExit(2) after other errors.
    """
    params = load_params()
    check_sections(read_yaml(Path("params.yaml")))
    competition = load_competition(params.data.competition)
    for folder in params.watched:
        check_watched(folder)
    plan = Plan(params, competition, Artifacts(), fresh_stages())
    found = look(plan)
    print(f"{'settings':<10} {'fine':<8} params.yaml, {params.data.competition}")
    for name, at, word in found.looked:
        print(f"{name:<10} {word:<8} {at}"[: shutil.get_terminal_size((120, 24)).columns])
    sys.stdout.flush()
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in found.errors:
        print(f"error: {line}", file=sys.stderr)
    if found.errors:
        raise SystemExit(2)


if __name__ == "__main__":
    with stage("check", keep_seconds=False):
        run_check()
