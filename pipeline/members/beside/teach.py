"""What one member's fold model says of the rows that it learned from, for a student of the same fold.

python -m stages.teach --student small --teacher large --fold 0

They are the rows that the student learns from, too; the model of fold k has seen neither fold k nor the holdout. Its
answers are in-sample, so surer than on new rows: a temperature above 1 takes some of that back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.batches import inference_batches
from pipeline.data.lessons import check_lesson, learned_hash
from pipeline.errors import PodiumError
from pipeline.files import atomic_folder, read_json, sha256_file, write_json, write_parquet
from pipeline.inference.forward import batch_logits
from pipeline.inference.network_member import available_devices, encoded_rows
from pipeline.inference.open_network import open_network
from pipeline.inference.predict import predict_member
from pipeline.members.beside.learned import asked
from pipeline.members.beside.lessons import ANSWERS, RECEIPT, STATES
from pipeline.members.context import Start
from pipeline.members.external import check_ids, read_predictions
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.saved import read_member
from pipeline.settings.external import External
from pipeline.settings.finetuning import NetworkSettings


def teach(student: Start, teacher: Start, fold: int, rows: pl.DataFrame, artifacts: Artifacts) -> bool:
    """Writes lessons/<student>/fold<k>/<teacher>/ from the teacher's model of this fold: what it says of its training
    `rows`, and of the student's rows from elsewhere.

    Returns whether it teaches; a member that the student does not name, or a fold that the student does not train, has
    an empty note in its place, which no change of that member alters.

    Raises: PodiumError where the teacher's model has learned other rows.
    """
    settings, name = student.settings, teacher.member
    assert isinstance(settings, NetworkSettings) and settings.teachers
    with atomic_folder(artifacts.lessons(student.member, fold) / name) as folder:
        if name not in settings.teachers.members or not settings.trains(fold):
            write_json(folder / RECEIPT, {})
            return False
        file = artifacts.receipt(name, fold)
        receipt: dict[str, Any] = read_json(file)
        made_from = {"data": artifacts.train_file, "folds": artifacts.folds_file, "start": artifacts.start(name)}
        expected = {"fold": fold, "rows": learned_hash(rows)}
        expected |= {key: sha256_file(each) for key, each in made_from.items()}
        check_lesson(file, receipt, name, expected)
        rows = asked(student, fold, rows, artifacts)
        if (receipt.get("training") or {}).get("collapsed"):
            print(f"warning: {student.member} fold {fold}: its teacher {name} has COLLAPSED", flush=True)
        if isinstance(teacher.settings, External):
            means = _of_a_file(teacher.settings, fold, rows, student.competition)
        else:
            model = artifacts.model(name, fold)
            means = predict_member(model, artifacts, rows, student.competition, artifacts.tokens)
        if lacking := int((~np.isfinite(means).all(axis=1)).sum()):
            raise PodiumError(
                f"{name} fold {fold}: expected finite numbers to teach with, found {lacking} rows without"
            )
        columns = (pl.Series(output, means[:, c]) for c, output in enumerate(student.competition.outputs))
        write_parquet(rows.select("id").with_columns(columns), folder / ANSWERS)
        if settings.teachers.cosine:
            np.save(folder / STATES, pooled_states(artifacts.model(name, fold), rows, student.competition, artifacts))
        write_json(folder / RECEIPT, {"teacher": name} | expected | {"answers": sha256_file(folder / ANSWERS)})
    return True


def _of_a_file(settings: External, fold: int, rows: pl.DataFrame, competition: Competition) -> np.ndarray:
    """Returns a teammate's answers to `rows`, from the file for this fold."""
    assert settings.fold_files is not None
    file = Path(settings.fold_files[fold])
    said = read_predictions(file, competition)
    check_ids(file, said, rows, f"the rows outside fold {fold}")
    its, oof = (
        rows.select("id").join(each, on="id", how="left", maintain_order="left").select(competition.outputs)
        for each in (said, read_predictions(Path(settings.file), competition))
    )
    if its.equals(oof):
        raise PodiumError(
            f"{file}: repeats {settings.file}: expected answers of one model, which has not learned fold {fold}, found "
            "out-of-fold answers, most of them from models that have"
        )
    return its.to_numpy()


def pooled_states(folder: Path, rows: pl.DataFrame, competition: Competition, artifacts: Artifacts) -> np.ndarray:
    """Returns the (rows, views, width) float16 states from which the fold model in `folder` answers."""
    about = read_member(folder, competition)
    settings = about.settings
    assert isinstance(settings, NetworkSettings)
    base, device = artifacts.base(settings.backbone, settings.inference.precision), available_devices()[0]
    tokenizer, caught = load_tokenizer(base), list[Tensor]()

    def keep(module: nn.Module, given: Any, pooled: Tensor) -> None:
        caught.append(pooled)

    encoded = encoded_rows(rows, settings, tokenizer, competition, artifacts.tokens)
    opened = open_network(folder, about, base, competition, device)
    hook = opened.network.pooling.register_forward_hook(keep)  # type: ignore[union-attr]
    states: np.ndarray | None = None
    try:
        for batch in inference_batches(encoded.lengths(), encoded.views, settings.inference.tokens_per_batch):
            caught.clear()
            batch_logits(opened.network, encoded, batch, int(tokenizer.pad_token_id), device)
            found = caught[-1].to(torch.float16).cpu().numpy().reshape(len(batch), encoded.views, -1)
            if states is None:
                states = np.zeros((len(rows), *found.shape[1:]), dtype=np.float16)
            states[batch] = found
    finally:
        hook.remove()
        opened.close()
    assert states is not None
    return states
