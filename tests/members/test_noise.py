"""Labels of pure noise: a student of the right teachers knows nothing of its fold, one of out-of-fold answers does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from networks import encoder, lay_backbone, scratch, start_of
from support import write_artifacts

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, Label
from pipeline.config import member_settings
from pipeline.data.split import Lessons, split_rows
from pipeline.files import write_json
from pipeline.members import fold as folds
from pipeline.members.beside.teach import teach
from pipeline.members.context import Start
from pipeline.members.fold import train_fold

ROWS, PARTS, WORDS = 150, 3, 25
NOISE = Competition(
    "noise", "text", "accuracy", "id", {"text": "text"}, Label(column="label"), classes=("no", "yes"), group=("g",)
)
TEACHER = member_settings(
    {"kind": "tabular", "backbone": "none", "model": "logistic", "features": False}
    | {"words": {"longest": 1, "max_features": 200, "min_df": 1}, "logistic": {"c": 5.0}}
)
STUDENT = encoder(
    {"epochs": 20, "schedule": {"rate": 1e-2}, "batches": {"rows_per_step": 16, "tokens_per_batch": 2048}},
    teachers={"members": ["words"], "weight": 20.0, "temperature": 1.0},
    max_tokens=32,
)


def noise(seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    texts = [[" ".join(f"w{w}" for w in draw.integers(WORDS, size=6))] for _ in range(ROWS)]
    columns = {"id": [f"r{n}" for n in range(ROWS)], "label": draw.integers(0, 2, ROWS).astype(np.int16)}
    return pl.DataFrame(columns | {"text": texts, "group": np.arange(ROWS)})


def accuracies(seed: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Of the student by its stages, and of one that is taught out-of-fold answers past all checks."""
    rows = noise(seed)
    artifacts = Artifacts(write_artifacts(root, rows, NOISE, np.arange(ROWS) % PARTS))
    lay_backbone(artifacts.root, "bert", scratch("deberta-v3", vocabulary=300, positions=256, seed=seed))
    words = Start("words", TEACHER, NOISE, 1)
    write_json(artifacts.start("words"), asdict(words))
    small = start_of("small", STUDENT, NOISE, artifacts.root)
    splits = [split_rows(rows, artifacts.folds(), fold) for fold in range(PARTS)]
    for fold, split in enumerate(splits):
        train_fold(split, words, fold, artifacts)
    oof = pl.concat([pl.read_parquet(artifacts.oof_part("words", fold)) for fold in range(PARTS)])

    def leaking(start: Start, fold: int, learned: pl.DataFrame, artifacts: Artifacts) -> Any:
        said = learned.select("id").join(oof, on="id", how="left", maintain_order="left").select(NOISE.outputs)
        return Lessons(learned["id"], said.to_numpy().astype(np.float32), said.to_numpy(), None), {}

    found = {}
    for way in ("taught", "leak"):
        with monkeypatch.context() as patched:
            if way == "leak":
                patched.setattr(folds, "lessons_of", leaking)
            right = []
            for fold, split in enumerate(splits):
                teach(small, words, fold, split.train, artifacts)
                train_fold(split, small, fold, artifacts)
                said = pl.read_parquet(artifacts.oof_part("small", fold)).select(NOISE.outputs).to_numpy()
                right.append(said.argmax(axis=1) == split.fold["label"].to_numpy())
        found[way] = float(np.concatenate(right).mean())
    return found


@pytest.mark.slow
def test_on_noise_a_student_is_at_chance_and_a_leak_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [accuracies(seed, tmp_path / str(seed), monkeypatch) for seed in range(20)]
    for way, low, high in (("taught", -2.0, 2.0), ("leak", 4.0, np.inf)):
        each = np.array([draw[way] for draw in draws])
        error = each.std(ddof=1) / np.sqrt(len(each))
        print(f"{way}: {each.mean():.4f} ± {error:.4f}")
        assert low < (each.mean() - 0.5) / error < high
