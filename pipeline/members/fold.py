"""One fold model from start to receipt: train, predict its fold and the holdout, write what the next stages read.

python -m stages.finetune --member words --fold 0
"""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.data.folds import Split
from pipeline.data.rows import swapped
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, remove_partials, sha256_file, write_json, write_parquet
from pipeline.inference.predict import predict_member
from pipeline.members.context import Run
from pipeline.training.checkpoint import Checkpoint, checkpoint

UNSEEN = 1.0e-6
"""Rows added to each class of the prior, so that one that never occurred has a finite log loss."""

SWAPPED_ROWS = 64
"""So many rows of the fold are asked in both orders of their sides."""


def train_fold(kind: ModuleType, split: Split, start: dict[str, Any], fold: int, artifacts: Path) -> float | None:
    """Trains fold model `fold` with `kind.train`, and writes its folder, its OOF and holdout parts and its receipt.

    A member that does not train this fold writes the same files without rows. Returns its score on the fold.
    """
    member, settings = start["member"], start["settings"]
    folder = artifacts / "members" / member / f"fold{fold}"
    provenance = _provenance(member, fold, artifacts)
    if settings["folds"] is not None and fold not in settings["folds"]:
        with atomic_folder(folder) as partial:
            write_json(partial / "member.json", {"kind": settings["kind"], "trained": False})
        _write(provenance, Split(split.train, split.fold.head(0), split.holdout.head(0)), None, start, artifacts)
        return None
    key = hashlib.sha256(json.dumps(provenance).encode()).hexdigest()
    competition = competition_from_json(start["competition"])
    with checkpoint(f"{member}-fold{fold}", key) as state:
        remove_partials(folder)
        run = Run(f"{member} fold {fold}", artifacts, state)
        with atomic_folder(folder) as partial:
            training = kind.train(split, start, partial, run)
        gc.collect()  # networks refer to themselves; the prediction is about to load another
        began = time.monotonic()
        turned = _turned(split.fold, settings["kind"], competition)
        asked = pl.concat([split.fold, split.holdout, turned])
        answers = predict_member(folder, asked, competition, run.token_cache)
        probabilities, mirrored = np.split(answers, [len(asked) - len(turned)])
        if settings["kind"] != "external":  # which may not know every id
            _refuse_gaps(probabilities, f"{member} fold {fold}")
        print(f"{member} fold {fold}: {len(asked)} rows predicted in {time.monotonic() - began:.1f} s", flush=True)
        if training is not None:
            unlearned = collapsed(split, probabilities[: len(split.fold)], competition)
            training["collapsed"] = unlearned or training["failed"] is not None
            if training["collapsed"]:
                why = "no better than the prior" if unlearned else training["failed"]
                print(f"warning: {member} fold {fold}: COLLAPSED, {why}", flush=True)
        told = {"training": training, "swap": swap_difference(probabilities, mirrored, competition)}
        _write(provenance | told, split, probabilities, start, artifacts)
    if not len(split.fold):
        return None
    return METRICS[competition.metric].score(split.fold["label"].to_numpy(), probabilities[: len(split.fold)])


def quick_look(kind: ModuleType, split: Split, start: dict[str, Any], rows: int, artifacts: Path) -> float:
    """Trains on the first `rows` training rows, keeps nothing, and returns the score on as many rows of the fold."""
    competition = competition_from_json(start["competition"])
    asked = split.fold.head(rows)
    (artifacts / "members").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quick-", dir=artifacts / "members") as temporary:
        folder = Path(temporary) / "fold"  # as deep as a fold model's, so that it finds its backbone
        folder.mkdir()
        run = Run(f"{start['member']} quick look", artifacts, Checkpoint(Path(temporary) / "checkpoint"), quick=True)
        kind.train(Split(split.train.head(rows), asked, split.holdout), start, folder, run)
        probabilities = predict_member(folder, asked, competition)
    if start["settings"]["kind"] != "external":
        _refuse_gaps(probabilities, run.label)
    return METRICS[competition.metric].score(asked["label"].to_numpy(), probabilities)


def _refuse_gaps(probabilities: np.ndarray, label: str) -> None:
    if lacking := int((~np.isfinite(probabilities).all(axis=1)).sum()):
        raise PodiumError(f"{label}: expected finite probabilities, found {lacking} rows without")


def _turned(rows: pl.DataFrame, kind: str, competition: Competition) -> pl.DataFrame:
    """The first SWAPPED_ROWS rows with their sides exchanged.

    None of them where the task has no sides, and for a file of predictions, which knows rows by their ids alone.
    """
    wanted = competition.kind.mirror and kind != "external"
    return swapped(rows.head(SWAPPED_ROWS), competition.kind) if wanted else rows.head(0)


def swap_difference(answers: np.ndarray, mirrored: np.ndarray, competition: Competition) -> float | None:
    """The largest difference between what a model says of mirrored rows, brought back, and of the rows themselves.

    answers (rows, classes) of at least the rows that `mirrored` (turned rows, classes) answers, in the same order. None
    where none was asked.
    """
    if not len(mirrored):
        return None
    return float(np.abs(competition.mirrored(mirrored) - answers[: len(mirrored)]).max())


def collapsed(split: Split, probabilities: np.ndarray, competition: Competition) -> bool:
    """Whether the fold model is no better on its fold than the shares of the classes that it learned from."""
    labels = split.fold["label"].to_numpy()
    if not len(labels):
        return False
    counts = np.bincount(split.train["label"].to_numpy(), minlength=len(competition.classes)) + UNSEEN
    prior = np.tile(counts / counts.sum(), (len(labels), 1))
    log_loss = METRICS["log_loss"].score
    return not log_loss(labels, probabilities) < log_loss(labels, prior)


def _write(
    provenance: dict[str, Any], split: Split, probabilities: np.ndarray | None, start: dict[str, Any], artifacts: Path
) -> None:
    """The OOF and holdout parts, and the receipt that names them; `probabilities` of fold and holdout, one below the
    other, None for a fold that is not trained."""
    member, fold, classes = provenance["member"], provenance["fold"], start["competition"]["classes"]
    values = np.empty((0, len(classes))) if probabilities is None else probabilities
    files = {"oof": f"fold{fold}.parquet", "holdout": f"holdout{fold}.parquet"}
    each = zip(files.values(), (split.fold, split.holdout), np.split(values, [len(split.fold)]), strict=True)
    for file, rows, part in each:
        columns = (pl.Series(name, part[:, c]) for c, name in enumerate(classes))
        write_parquet(rows.select("id").with_columns(columns), artifacts / "oof" / member / file)
    hashes = {name: sha256_file(artifacts / "oof" / member / file) for name, file in files.items()}
    receipt = provenance | {"trained": probabilities is not None, "parts": hashes}
    write_json(artifacts / "receipts" / f"{member}-fold{fold}.json", receipt)


def _provenance(member: str, fold: int, artifacts: Path) -> dict[str, Any]:
    """What the fold model comes from; the oof stage refuses parts that do not belong together."""
    return {
        "member": member,
        "fold": fold,
        "data": sha256_file(artifacts / "competition" / "train.parquet"),
        "folds": sha256_file(artifacts / "folds.parquet"),
        "start": sha256_file(artifacts / "start" / f"{member}.json"),
    }
