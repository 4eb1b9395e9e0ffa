"""One fold model from start to receipt: train, predict its fold and the holdout, write what the next stages read.

python -m stages.finetune --member words --fold 0
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.data.features import swapped
from pipeline.data.folds import Split
from pipeline.files import atomic_folder, sha256_file, write_json, write_parquet
from pipeline.inference.predict import predict_member
from pipeline.training.progress import track

SWAPPED_ROWS = 64
"""So many rows of the fold are asked in both orders of their sides."""


def train_fold(kind: ModuleType, split: Split, start: dict[str, Any], fold: int, artifacts: Path) -> float | None:
    """Trains fold model `fold` with `kind.train`, and writes its folder, its OOF and holdout parts and its receipt.

    A member that does not train this fold writes the same files without rows. Returns its score on the fold.
    """
    member, settings = start["member"], start["settings"]
    competition = competition_from_json(start["competition"])
    folder = artifacts / "members" / member / f"fold{fold}"
    parts = {"oof": split.fold, "holdout": split.holdout}
    trained = settings["folds"] is None or fold in settings["folds"]
    if trained:
        with atomic_folder(folder) as partial:
            kind.train(split, start, partial)
        predicted = {
            name: _predictions(rows.select("id"), predict_member(folder, rows, competition), competition)
            for name, rows in track(list(parts.items()), f"{member} fold {fold}: predict")
        }
    else:
        with atomic_folder(folder) as partial:
            write_json(partial / "member.json", {"kind": settings["kind"], "trained": False})
        none = np.empty((0, len(competition.classes)))
        predicted = {name: _predictions(rows.select("id").head(0), none, competition) for name, rows in parts.items()}
    files = {"oof": f"fold{fold}.parquet", "holdout": f"holdout{fold}.parquet"}
    for name, frame in predicted.items():
        write_parquet(frame, artifacts / "oof" / member / files[name])
    receipt = _receipt(start, fold, trained, files, artifacts)
    receipt["swap"] = swap_difference(folder, split.fold, settings["kind"], competition) if trained else None
    write_json(artifacts / "receipts" / f"{member}-fold{fold}.json", receipt)
    if not trained or not len(split.fold):
        return None
    probabilities = predicted["oof"].select(list(competition.classes)).to_numpy()
    return METRICS[competition.metric].score(split.fold["label"].to_numpy(), probabilities)


def swap_difference(folder: Path, rows: pl.DataFrame, kind: str, competition: Competition) -> float | None:
    """The largest difference between what the model says of some rows and of their mirror images, brought back.

    None where the task has no sides, and for a file of predictions, which knows rows by their ids alone.
    """
    asked = rows.head(SWAPPED_ROWS)
    if not competition.kind.mirror or kind == "external" or not len(asked):
        return None
    turned = predict_member(folder, swapped(asked, competition.kind), competition)
    return float(np.abs(competition.mirrored(turned) - predict_member(folder, asked, competition)).max())


def quick_look(kind: ModuleType, split: Split, start: dict[str, Any], rows: int, folder: Path) -> float:
    """Trains on the first `rows` training rows in `folder`, a temporary one, and returns the score on the fold."""
    competition = competition_from_json(start["competition"])
    kind.train(Split(split.train.head(rows), split.fold, split.holdout), start, folder)
    probabilities = predict_member(folder, split.fold, competition)
    return METRICS[competition.metric].score(split.fold["label"].to_numpy(), probabilities)


def _predictions(ids: pl.DataFrame, probabilities: np.ndarray, competition: Competition) -> pl.DataFrame:
    return ids.with_columns(pl.Series(name, probabilities[:, c]) for c, name in enumerate(competition.classes))


def _receipt(start: dict[str, Any], fold: int, trained: bool, files: dict[str, str], artifacts: Path) -> dict[str, Any]:
    """Where the parts come from; the oof stage refuses parts that do not belong together."""
    member = start["member"]
    return {
        "member": member,
        "fold": fold,
        "trained": trained,
        "data": sha256_file(artifacts / "competition" / "train.parquet"),
        "folds": sha256_file(artifacts / "folds.parquet"),
        "start": sha256_file(artifacts / "start" / f"{member}.json"),
        "parts": {name: sha256_file(artifacts / "oof" / member / file) for name, file in files.items()},
    }
