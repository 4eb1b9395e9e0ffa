"""One fold model from start to receipt: train, predict its fold and the holdout, write what the next stages read.

python -m stages.finetune --member words --fold 0
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.decision import PLAIN
from pipeline.competitions.task import Competition
from pipeline.data.folds import group_keys
from pipeline.data.lessons import learned_hash
from pipeline.data.rows import swapped
from pipeline.data.split import Split
from pipeline.ensemble.scoring import Answers, score
from pipeline.errors import DivergedError
from pipeline.files import atomic_folder, remove_partials, sha256_file, write_json, write_parquet
from pipeline.inference.predict import predict_member
from pipeline.kinds import KINDS
from pipeline.members.beside.auxiliary import auxiliary_rows
from pipeline.members.beside.learned import learned, said
from pipeline.members.beside.lessons import lessons as lessons_of
from pipeline.members.context import Run, Start
from pipeline.models.candidates import Candidates
from pipeline.models.saved import save_untrained
from pipeline.training.checkpoint import Checkpoint, checkpoint

DRAWN, ERRORS = (2.0, 4.0, 8.0), 2.0
"""How far answers are drawn to the prior where they lose more than it, and how certain a gain must be then."""

SWAPPED_ROWS = 64
"""So many rows of the fold are asked in both orders of their sides."""


def train_fold(split: Split, start: Start, fold: int, artifacts: Artifacts) -> float | None:
    """Trains fold model `fold` of a member, and writes its folder, its OOF and holdout parts and its receipt.

    A member that does not train this fold writes the same files without rows. Returns its score on the fold.
    """
    member, competition, kind = start.member, start.competition, KINDS[start.settings.kind]
    folder, label = artifacts.model(member, fold), f"{member} fold {fold}"
    provenance = _provenance(member, fold, artifacts) | {"rows": learned_hash(split.train)}
    if not start.settings.trains(fold):
        with atomic_folder(folder) as partial:
            save_untrained(partial, start.settings)
        _write(provenance, Split(split.train, split.fold.head(0), split.holdout.head(0)), None, start, artifacts)
        return None
    lessons, told_by = lessons_of(start, fold, split.train, artifacts)
    if told_by:
        provenance["teachers"] = told_by
    key = hashlib.sha256(json.dumps(provenance).encode()).hexdigest()
    with checkpoint(f"{member}-fold{fold}", key) as state:
        remove_partials(folder)
        run = Run(label, artifacts, state)
        auxiliary = auxiliary_rows(start, pl.concat([split.fold, split.holdout]), label)
        extra = learned(start, fold, lessons, artifacts)
        split = replace(split, auxiliary=auxiliary, lessons=lessons, extra=extra)
        from_elsewhere = said(start, extra, label)
        with atomic_folder(folder) as partial:
            training = train_model(split, start, partial, run)
        gc.collect()  # networks refer to themselves; the prediction is about to load another
        began = time.monotonic()
        # A file of predictions knows rows by their ids alone, in whichever order their sides stand.
        mirrors = competition.kind.mirror and kind.knows_every_row
        turned = swapped(split.fold.head(SWAPPED_ROWS), competition.kind) if mirrors else split.fold.head(0)
        asked = pl.concat([split.fold, split.holdout, turned])
        answers = predict_member(folder, artifacts, asked, competition, run.token_cache)
        means, mirrored = np.split(answers, [len(asked) - len(turned)])
        if kind.knows_every_row:
            _refuse_gaps(means, label)
        print(f"{label}: {len(asked)} rows predicted in {time.monotonic() - began:.1f} s", flush=True)
        if training is not None:
            unlearned = collapsed(split, means[: len(split.fold)], competition)
            training["collapsed"] = unlearned or training["failed"] is not None
            if training["collapsed"]:
                why = "no better than the prior" if unlearned else training["failed"]
                print(f"warning: {label}: COLLAPSED, {why}", flush=True)
        told = from_elsewhere | {"training": training, "swap": swap_difference(means, mirrored, competition)}
        _write(provenance | told, split, means, start, artifacts)
    return fold_score(split.fold, means[: len(split.fold)], artifacts.competition()) if len(split.fold) else None


def train_model(split: Split, start: Start, folder: Path, run: Run) -> dict[str, Any] | None:
    """Trains into `folder` by the member's kind; returns the record of the run, of kinds that keep one.

    A quick look takes one device.
    """
    train, devices = KINDS[start.settings.kind].train(), start.settings.devices
    if devices == 1 or run.quick:
        training = train(split, start, folder, run)
    else:
        from pipeline.training.devices.launch import on_devices  # torch is slow to load

        training = on_devices(devices, run.label, train, split, start, folder, run)
    if start.competition.candidates:
        Candidates.of(split.train, start.competition).save(folder)
    return training


@dataclass(frozen=True)
class Look:
    """What a quick look found."""

    score: float
    constant: float
    """The constant predictor's score on the same rows."""
    losses: np.ndarray
    """(rows,) in nats, of each row of the fold that was asked."""
    constant_losses: np.ndarray
    """Those of the constant predictor."""
    seconds: float
    """Of training."""
    training: dict[str, Any] | None
    """The record of the run, of kinds that keep one."""


def quick_look(
    split: Split, start: Start, fold: int, rows: int | None, artifacts: Artifacts, without: Collection[str] = ()
) -> Look:
    """Trains on the first `rows` training rows, asks about as many rows of the fold, and keeps no model.

    rows: None for all. without: sources of rows from elsewhere that are left out.
    """
    competition, kind = start.competition, KINDS[start.settings.kind]
    most = sys.maxsize if rows is None else rows
    asked = split.fold.head(most)
    with tempfile.TemporaryDirectory(prefix="podium-quick-") as temporary:
        folder = Path(temporary) / "fold"
        folder.mkdir()
        state = Checkpoint(Path(temporary) / "checkpoint")
        run = Run(f"{start.member} quick look", artifacts, state, quick=True)
        auxiliary = auxiliary_rows(start, pl.concat([split.fold, split.holdout]), run.label, rows)
        few, began = split.train.head(most), time.monotonic()
        lessons, _ = lessons_of(start, fold, split.train, artifacts)
        sources = {name: source for name, source in start.extra.items() if name not in without}
        extra = learned(replace(start, extra=sources), fold, lessons, artifacts)
        extra = extra and extra.head(most)
        part = Split(few, asked, split.holdout, auxiliary, lessons, extra)
        training = train_model(part, start, folder, run)
        seconds = time.monotonic() - began
        means = predict_member(folder, artifacts, asked, competition)
    if kind.knows_every_row:
        _refuse_gaps(means, run.label)
    scored, family, labels = artifacts.competition(), competition.family, asked["label"].to_numpy()
    constant = np.tile(family.prior(few["label"].to_numpy()), (len(asked), 1))
    return Look(
        fold_score(asked, means, scored),
        fold_score(asked, constant, scored),
        family.losses(labels, means),
        family.losses(labels, constant),
        seconds,
        training,
    )


def fold_score(rows: pl.DataFrame, means: np.ndarray, competition: Competition) -> float:
    """Returns the competition's score of a fold model's answers to `rows`; what is decided is decided plainly."""
    groups = group_keys(rows, competition.kind).rank("dense").to_numpy()
    answers = Answers(means, PLAIN.apply(means, competition))
    return score(rows["label"].to_numpy(), answers, groups, competition)


def _refuse_gaps(means: np.ndarray, label: str) -> None:
    if lacking := int((~np.isfinite(means).all(axis=1)).sum()):
        raise DivergedError(f"{label}: expected finite numbers, found {lacking} rows without")


def swap_difference(answers: np.ndarray, mirrored: np.ndarray, competition: Competition) -> float | None:
    """Returns the largest difference between what a model says of mirrored rows, brought back, and of the rows.

    answers (rows, outputs) of at least the rows that `mirrored` (turned rows, outputs) answers, in the same order. None
    where none was asked.
    """
    if not len(mirrored):
        return None
    return float(np.abs(competition.mirrored(mirrored) - answers[: len(mirrored)]).max())


def collapsed(split: Split, means: np.ndarray, competition: Competition) -> bool:
    """Returns whether the fold model knows no more of its fold than the constant predictor of what it learned from.

    A model that is only too sure of itself, as networks are that learned few rows by heart, loses more than the prior
    and still tells rows apart: the stack weighs it down. So it is also asked with its answers drawn to the prior, and
    has not collapsed where that gains more than ERRORS standard errors.
    """
    labels, family = split.fold["label"].to_numpy(), competition.family
    if not len(labels):
        return False
    prior = family.link(family.prior(split.train["label"].to_numpy())[None])  # clipped: nothing is ruled out
    expected = family.losses(labels, np.tile(family.means(prior), (len(labels), 1)))
    if family.losses(labels, means).mean() < expected.mean():
        return False
    for drawn in DRAWN:
        gains = expected - family.losses(labels, family.means(prior + (family.link(means) - prior) / drawn))
        if gains.mean() > ERRORS * gains.std() / np.sqrt(len(gains)):
            return False
    return True


def _write(
    provenance: dict[str, Any], split: Split, means: np.ndarray | None, start: Start, artifacts: Artifacts
) -> None:
    """Writes the OOF and holdout parts, and the receipt that names them; `means` of fold and holdout, one below
    the other, None for a fold that is not trained."""
    member, fold, outputs = provenance["member"], provenance["fold"], start.competition.outputs
    values = np.empty((0, len(outputs))) if means is None else means
    files = {"oof": artifacts.oof_part(member, fold), "holdout": artifacts.holdout_part(member, fold)}
    each = zip(files.values(), (split.fold, split.holdout), np.split(values, [len(split.fold)]), strict=True)
    for file, rows, part in each:
        columns = (pl.Series(name, part[:, c]) for c, name in enumerate(outputs))
        write_parquet(rows.select("id").with_columns(columns), file)
    hashes = {name: sha256_file(file) for name, file in files.items()}
    receipt = provenance | {"trained": means is not None, "parts": hashes}
    write_json(artifacts.receipt(member, fold), receipt)


def _provenance(member: str, fold: int, artifacts: Artifacts) -> dict[str, Any]:
    """Returns what the fold model comes from; the oof stage refuses parts that do not belong together."""
    sources = {"data": artifacts.train_file, "folds": artifacts.folds_file, "start": artifacts.start(member)}
    return {"member": member, "fold": fold} | {name: sha256_file(file) for name, file in sources.items()}
