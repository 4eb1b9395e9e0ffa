"""Puts the members' parts side by side, after checking that they belong to this data, these folds and these settings.

python -m stages.oof
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.lessons import check_lesson, learned_hash
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file


@dataclass(frozen=True)
class Oof:
    """Out-of-fold and holdout predictions of all members."""

    oof: pl.DataFrame
    """id, fold, label, and a Float64 column "<member>/<output>"; null where a member did not train the row's fold."""
    holdout: pl.DataFrame
    """id, label, model (the fold of the fold model), and the same columns; one row per holdout row and fold model."""


def collect(artifacts: Artifacts, members: list[str], folds: list[int], competition: Competition) -> Oof:
    """Returns the parts of `members` for all `folds`, side by side.

    Raises: PodiumError for a part that is missing, stale, repeated, or that does not cover its rows exactly.
    """
    rows = artifacts.train().select("id", "label").collect().with_columns(artifacts.folds()["fold"])
    wanted = {"data": sha256_file(artifacts.train_file), "folds": sha256_file(artifacts.folds_file)}
    oof = rows.filter(pl.col("fold") != HOLDOUT).select("id", "fold", "label")
    kept_out = rows.filter(pl.col("fold") == HOLDOUT).select("id", "label")
    models = pl.DataFrame({"model": folds}, schema={"model": pl.Int8})
    holdout = kept_out.join(models, how="cross", maintain_order="left_right").select("id", "label", "model")
    learned = {fold: learned_hash(rows.filter(~pl.col("fold").is_in([fold, HOLDOUT]))) for fold in folds}
    for member in members:
        start = sha256_file(_existing(artifacts.start(member)))
        receipts = {
            fold: _receipt(artifacts, member, fold, wanted | {"start": start, "rows": learned[fold]}) for fold in folds
        }
        own, others = [], []
        for fold, receipt in receipts.items():
            here, there = rows.filter(pl.col("fold") == fold), kept_out
            if not receipt["trained"]:
                here, there = here.head(0), there.head(0)
            own.append(_part(artifacts.oof_part(member, fold), receipt["parts"]["oof"], here))
            part = _part(artifacts.holdout_part(member, fold), receipt["parts"]["holdout"], there)
            others.append(part.with_columns(pl.lit(fold, pl.Int8).alias("model")))
        names = {name: f"{member}/{name}" for name in competition.outputs}
        oof = oof.join(pl.concat(own).rename(names), on="id", how="left", maintain_order="left")
        holdout = holdout.join(pl.concat(others).rename(names), on=["id", "model"], how="left", maintain_order="left")
    return Oof(oof, holdout)


def _existing(file: Path) -> Path:
    if not file.exists():
        raise PodiumError(f"{file}: no such file; run `dvc repro`")
    return file


def _receipt(artifacts: Artifacts, member: str, fold: int, wanted: dict[str, str]) -> dict[str, Any]:
    file = _existing(artifacts.receipt(member, fold))
    receipt: dict[str, Any] = read_json(file)
    for name, expected in wanted.items():
        found = str(receipt.get(name, "not noted"))
        if found != expected:
            stage = "distil" if "teachers" in receipt else "finetune"
            raise PodiumError(
                f"{file}: stale, made from other {name} ({found[:9]}, now {expected[:9]}); "
                f"run `dvc repro -f {stage}@{member}-{fold}`"
            )
    for teacher, lesson in receipt.get("teachers", {}).items():
        start = sha256_file(_existing(artifacts.start(teacher)))
        check_lesson(file, lesson, teacher, wanted | {"fold": fold, "start": start})
    return receipt


def _part(file: Path, sha256: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Returns one checked part: the bytes that its receipt names, and each of `rows` exactly once."""
    if sha256_file(_existing(file)) != sha256:
        raise PodiumError(f"{file}: not the file that its receipt names; run `dvc checkout` or `dvc repro -f finetune`")
    frame = pl.read_parquet(file)
    if frame["id"].is_duplicated().any():
        raise PodiumError(f"{file}: id {frame.filter(pl.col('id').is_duplicated())['id'][0]} stands more than once")
    if sorted(frame["id"]) != sorted(rows["id"]):
        raise PodiumError(f"{file}: expected the {len(rows)} ids of its rows, found {len(frame)} that are not the same")
    return frame
