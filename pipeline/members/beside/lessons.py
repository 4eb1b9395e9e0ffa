"""What teachers tell a student's fold model: read, checked, and made into one answer for each row.

python -m stages.teach writes it (pipeline/members/beside/teach.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.family import Gaussian
from pipeline.data.lessons import check_lesson, learned_hash
from pipeline.data.split import Lessons
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file
from pipeline.members.beside.learned import asked
from pipeline.members.context import Start
from pipeline.settings.finetuning import NetworkSettings

ANSWERS, STATES, RECEIPT = "answers.parquet", "states.npy", "receipt.json"
"""In a lesson's folder: id and a column per output; float16 (rows, views, width); where they come from."""


def lessons(
    start: Start, fold: int, rows: pl.DataFrame, artifacts: Artifacts
) -> tuple[Lessons | None, dict[str, dict[str, Any]]]:
    """Returns what the teachers' models of this fold say of the fold's training `rows`, and of the student's rows from
    elsewhere, and their receipts by name.

    Probabilities are taken at the student's temperature, and are then, as numbers, averaged over the teachers: the KL
    divergences from several of them have the gradient of the one from their mean. None and nothing where `start` is no
    student's.

    Raises: PodiumError where a lesson is missing, stale, or from a model that has learned other rows.
    """
    settings = start.settings
    if not isinstance(settings, NetworkSettings) or not settings.teachers:
        return None, {}
    competition, family = start.competition, start.competition.family
    made_from = {"data": sha256_file(artifacts.train_file), "folds": sha256_file(artifacts.folds_file)}
    expected = made_from | {"fold": fold, "rows": learned_hash(rows)}
    ids = asked(start, fold, rows, artifacts)["id"]
    receipts, answers, means, states = {}, [], [], []
    for teacher in settings.teachers.members:
        folder = artifacts.lessons(start.member, fold) / teacher
        file = folder / RECEIPT
        if not file.is_file():
            raise PodiumError(f"{file}: no such file; run `dvc repro teach@{start.member}-{teacher}-{fold}`")
        receipt = receipts[teacher] = read_json(file)
        check_lesson(file, receipt, teacher, expected | {"start": sha256_file(artifacts.start(teacher))})
        if sha256_file(folder / ANSWERS) != receipt["answers"]:
            raise PodiumError(f"{folder / ANSWERS}: not the file that its receipt names; run `dvc checkout`")
        said = pl.read_parquet(folder / ANSWERS)
        if not said["id"].equals(ids):
            raise PodiumError(f"{folder / ANSWERS}: its ids are not those of the rows that {start.member} learns")
        means.append(said.select(competition.outputs).to_numpy())
        eta = family.link(means[-1])
        answers.append(eta if isinstance(family, Gaussian) else family.means(eta / settings.teachers.temperature))
        if settings.teachers.cosine:
            state = np.load(folder / STATES).astype(np.float32)
            if state.shape[2] != (width := artifacts.backbone_facts(settings.backbone)["hidden"]):
                raise PodiumError(
                    f"params.yaml: students.{start.member}.teachers.cosine: its pooled states have {width} numbers, "
                    f"those of {teacher} {state.shape[2]}: leave cosine out"
                )
            states.append(state / np.maximum(np.linalg.norm(state, axis=2, keepdims=True), 1.0e-12))
    mean = np.mean(answers, axis=0).astype(np.float32)
    return Lessons(ids, mean, np.mean(means, axis=0), np.mean(states, axis=0) if states else None), receipts
