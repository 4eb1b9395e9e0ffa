"""Builds the Kaggle dataset: fold models, stackers, the kernel's code, wheels, parity rows, and a manifest with hashes.

python -m stages.package

The folder is checked before it is moved into place: every fold model is loaded from it and must repeat its out-of-fold
predictions. The Kaggle CLI uploads it with `kaggle datasets create -r zip`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.competitions.task import competition_from_json
from pipeline.config import Package
from pipeline.ensemble.ladder import Ladder, load_ladder
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, link, read_json, write_parquet
from pipeline.imports import ROOT, closure
from pipeline.members.refit import MODEL, PARITY
from pipeline.package.manifest import write_manifest, write_metadata
from pipeline.package.parity_rows import parity_rows, refit_rows, reload_and_compare
from pipeline.package.workload import work_of

ENTRY = "pipeline.kernel.run"
"""The kernel's code is what this module imports, and nothing else."""


def build_package(artifacts: Path, settings: Package, wheels: list[Path]) -> None:
    """Writes `artifacts`/package from the stack, the members that it uses, the code of the kernel and `wheels`.

    Raises: PodiumError where a fold model is missing, or says something else than in training.
    """
    competition = competition_from_json(read_json(artifacts / "competition" / "competition.json")["competition"])
    ladder = load_ladder(artifacts / "stack", competition)
    oof = pl.read_parquet(artifacts / "oof" / "oof.parquet")
    folds = sorted(set(oof["fold"]))
    members = _members(artifacts / "members", ladder, folds)
    extra = folds[-1] + 1
    refits = _refits(artifacts / "refit", members)
    with atomic_folder(artifacts / "package") as folder:
        for name, member in members.items():
            for fold in member["folds"]:
                place = Path("members", name, f"fold{fold}")
                _link_all(artifacts / place, folder / place)
            if member["kind"] in ("encoder", "decoder"):
                from pipeline.package.bases import pack_backbone  # torch is slow to load

                saved = read_json(artifacts / "members" / name / f"fold{member['folds'][0]}" / "member.json")
                pack_backbone(artifacts, saved["settings"]["backbone"], member["kind"], member["precision"], folder)
            if name in refits:
                _link_all(artifacts / "refit" / name / MODEL, folder / "members" / name / f"fold{extra}")
                member["folds"] = [extra, *member["folds"]]
        for file in sorted((artifacts / "stack").iterdir()):
            if file.suffix in (".json", ".txt"):  # not level2.parquet, which holds labels and serves the report
                link(file, folder / "stack" / file.name)
        for wheel in wheels:
            link(wheel, folder / "wheels" / wheel.name)
        for source in closure(ENTRY):
            # Copied: an editor that writes in place would change a linked file under its hash.
            (folder / "code" / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, folder / "code" / source)
        train = pl.read_parquet(artifacts / "competition" / "train.parquet")
        parity = parity_rows(train, oof, list(members), competition)
        if refits:
            parity = pl.concat([parity, refit_rows(train, refits, extra, parity)])
        write_parquet(parity, folder / "parity.parquet")
        reload_and_compare(folder, members, competition)
        for name, member in members.items():
            member |= work_of(folder, name, member, parity, competition)
        write_manifest(folder, competition, ladder, members, settings.budget_seconds)
        write_metadata(folder, settings)
        total = sum(path.stat().st_size for path in folder.rglob("*"))
    print(f"package: {len(members)} members, {total / 1e6:.1f} MB", flush=True)


def _members(folder: Path, ladder: Ladder, folds: list[int]) -> dict[str, dict[str, Any]]:
    """Kind, trained folds and precision of every member that a rung uses, in the order of the ladder."""
    members: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(member for rung in ladder.rungs for member in rung.members):
        trained = []
        for fold in folds:
            file = folder / name / f"fold{fold}" / "member.json"
            if not file.is_file():
                raise PodiumError(f"{file}: expected a fold model of member {name}, found none; run `dvc repro`")
            saved = read_json(file)
            if saved["trained"]:
                trained.append(fold)
        precision = saved.get("settings", {}).get("inference", {}).get("precision", "fp32")
        members[name] = {"kind": saved["kind"], "folds": trained, "precision": precision}
    return members


def _refits(folder: Path, members: dict[str, dict[str, Any]]) -> dict[str, pl.DataFrame]:
    """Member -> what its final refit said of the parity rows, for the members that have one.

    In the package a refit stands beside the fold models, under the first number that is no fold; it comes first, since
    it has seen the most rows.
    """
    models = {name: folder / name / MODEL / "member.json" for name in members}
    trained = [name for name, file in models.items() if file.is_file() and read_json(file)["trained"]]
    return {name: pl.read_parquet(folder / name / PARITY) for name in trained}


def _link_all(source: Path, target: Path) -> None:
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        link(file, target / file.relative_to(source))
