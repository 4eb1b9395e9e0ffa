"""Builds the Kaggle dataset: fold models, stackers, the kernel's code, wheels, parity rows, and a manifest with hashes.

The folder is checked before it is moved into place: every fold model is loaded from it and must repeat its out-of-fold
predictions. The Kaggle CLI uploads it with `kaggle datasets create -r zip`.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.artifacts import FACTS, MEMBER, PRETRAINING, Artifacts
from pipeline.config import Package
from pipeline.ensemble.ladder import Ladder, load_ladder
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, link, read_json, write_parquet
from pipeline.imports import ROOT, closure
from pipeline.kinds import KINDS, Kind
from pipeline.models.saved import read_member
from pipeline.package.averages import averaged
from pipeline.package.manifest import write_manifest, write_metadata
from pipeline.package.parity_rows import extra_rows, parity_rows, reload_and_compare
from pipeline.package.workload import member_workload
from pipeline.settings.finetuning import NetworkSettings

ENTRY = "pipeline.kernel.run"
"""Where the kernel's code begins."""
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
NOT_NEEDED = (FACTS, PRETRAINING, "spm.model")
"""spm.model: every tokenizer has been saved as tokenizer.json."""


def build_package(artifacts: Artifacts, settings: Package, wheels: list[Path]) -> None:
    """Writes `artifacts`/package from the stack, the members that it uses, the code of the kernel and `wheels`.

    Raises: PodiumError where a fold model is missing, or says something else than in training.
    """
    competition = artifacts.competition()
    ladder = load_ladder(artifacts.stack, competition)
    oof = pl.read_parquet(artifacts.oof_file)
    folds = sorted(set(oof["fold"]))
    members = _members(artifacts, ladder, folds)
    # A refit and an average stand beside the fold models, under the first numbers that are no folds.
    extra, refits = folds[-1] + 1, _refits(artifacts, members)
    averages: dict[str, pl.DataFrame] = {}
    with atomic_folder(artifacts.package) as folder:
        package = Artifacts(folder)
        for name, member in members.items():
            for fold in member["folds"]:
                _link_all(artifacts.model(name, fold), package.model(name, fold))
            if (kind := KINDS[member["kind"]]).network:
                about = read_member(artifacts.model(name, member["folds"][0])).settings
                assert about
                _pack_backbone(artifacts, about.backbone, kind, member["precision"], package)
                target = package.model(name, extra + 1)
                if settings.average and (found := averaged(name, about, member["folds"], artifacts, target)):
                    averages[name], member["averaged"] = found.answers, found.share
            if name in refits:
                _link_all(artifacts.refit_model(name), package.model(name, extra))
                member["folds"] = [extra, *member["folds"]]  # first, since it has seen the most rows
            if name in averages:
                member["folds"] = [extra + 1, *member["folds"]]  # first, since it stands for all of them
        for file in sorted(artifacts.stack.iterdir()):
            if file.suffix in (".json", ".txt"):  # not level2.parquet, which holds labels and serves the report
                link(file, package.stack / file.name)
        for wheel in wheels:
            link(wheel, package.wheels / wheel.name)
        for source in kernel_code(member["kind"] for member in members.values()):
            # Copied: an editor that writes in place would change a linked file under its hash.
            (package.code / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, package.code / source)
        train = pl.read_parquet(artifacts.train_file)
        parity = parity_rows(train, oof, list(members), competition)
        for number, answers in ((extra, refits), (extra + 1, averages)):
            if answers:
                parity = pl.concat([parity, extra_rows(train, answers, number, parity)])
        write_parquet(parity, package.parity_file)
        reload_and_compare(package, members, competition)
        for name, member in members.items():
            member |= member_workload(package, name, member, parity, competition)
        write_manifest(package, competition, ladder, members, settings)
        write_metadata(folder, settings)
        total = sum(path.stat().st_size for path in folder.rglob("*"))
    print(f"package: {len(members)} members, {total / 1e6:.1f} MB", flush=True)


def kernel_code(kinds: Iterable[str]) -> list[Path]:
    """Returns the files (relative to the repository) that the kernel imports, with members of these kinds."""
    return closure(ENTRY, *(module for kind in kinds for module in KINDS[kind].modules()))


def _members(artifacts: Artifacts, ladder: Ladder, folds: list[int]) -> dict[str, dict[str, Any]]:
    """Returns kind, trained folds and precision of every member that a rung uses, in the order of the ladder."""
    members: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(member for rung in ladder.rungs for member in rung.members):
        trained = []
        for fold in folds:
            file = artifacts.model(name, fold) / MEMBER
            if not file.is_file():
                raise PodiumError(f"{file}: expected a fold model of member {name}, found none; run `dvc repro`")
            saved = read_member(file.parent)
            if saved.trained:
                trained.append(fold)
                settings = saved.settings
        precision = settings.inference.precision if isinstance(settings, NetworkSettings) else "fp32"
        members[name] = {"kind": saved.kind.name, "folds": trained, "precision": precision}
    return members


def _refits(artifacts: Artifacts, members: Iterable[str]) -> dict[str, pl.DataFrame]:
    """Returns member -> what its final refit said of the parity rows, for the members that have one."""
    models = {name: artifacts.refit_model(name) / MEMBER for name in members}
    trained = [name for name, file in models.items() if file.is_file() and read_json(file)["trained"]]
    return {name: pl.read_parquet(artifacts.refit_answers(name)) for name in trained}


def _pack_backbone(artifacts: Artifacts, name: str, kind: Kind, precision: str, package: Artifacts) -> None:
    """Puts into `package` what fold models of `kind` need of the backbone `name`, once for all members and folds.

    Fold models of most kinds bring all weights themselves, so that config and tokenizer are enough. Where they share
    their base, it goes in as well, saved in the precision that they were trained on, in a folder of its own. A GPU
    quantises it in no time, and saves what is not quantised in fp16, in which a GPU computes with it; a CPU computes in
    fp32, and keeps that.
    """
    source, facts = artifacts.base(name), package.pretrained(name)
    if not (facts / FACTS).is_file():
        facts.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / FACTS, facts / FACTS)
    target = package.quantised(name, precision) if kind.shared_base else facts
    if (target / "config.json").is_file():
        return  # another member has brought it
    target.mkdir(parents=True, exist_ok=True)
    weights = {file for pattern in WEIGHT_FILES for file in source.glob(pattern)}
    for file in sorted(set(source.iterdir()) - weights):
        if file.is_file() and file.name not in NOT_NEEDED:
            shutil.copyfile(file, target / file.name)
    if kind.shared_base:
        from pipeline.inference.network_member import available_devices  # torch is slow to load
        from pipeline.models.backbones.loading import load_backbone

        base: Any = load_backbone(source, precision, available_devices()[0])
        # Under its own names: what reads text may have been a part of a network that sees pictures, too.
        base.save_pretrained(target, max_shard_size="5GB", save_original_format=False)
        del base
        gc.collect()  # bitsandbytes' 4-bit weights and their layers hold each other


def _link_all(source: Path, target: Path) -> None:
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        link(file, target / file.relative_to(source))
