"""Small competitions of every kind of answer, with rows, labels and what noisy members would say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from pipeline.competitions.submission import submission_columns
from pipeline.competitions.task import Competition, Label
from pipeline.package.scene import write_csv

BASE = {"name": "small", "id": "id", "texts": {"text": "text"}, "task": "text"}
PAIR = {"task": "pair", "texts": {"a": "a", "b": "b"}, "symmetric": True}
COMPETITIONS = {
    each.name: each
    for each in (
        Competition(**BASE | {"name": "classes"}, metric="log_loss", classes=("x", "y", "z"), label=Label("author")),
        Competition(
            **BASE | {"name": "decided"},
            metric="macro_f1",
            classes=("x", "y", "z"),
            label=Label("author"),
            answers={"author": "label"},
        ),
        Competition(
            **BASE | {"name": "ranked"},
            metric="map@3",
            classes=tuple("abcdefgh"),
            label=Label("author"),
            answers={"author": "top 3"},
        ),
        Competition(
            **BASE | {"name": "labels"},
            metric="mean_auc",
            outcome="labels",
            label=Label(columns=("toxic", "threat")),
        ),
        Competition(
            **BASE | {"name": "binary"},
            metric="f1",
            outcome="labels",
            label=Label(columns=("target",)),
            answers={"prediction": "label"},
        ),
        Competition(**BASE | {"name": "ordered"}, metric="qwk", outcome="ordered", label=Label("score", low=1, high=5)),
        Competition(
            **BASE | {"name": "numbers"},
            metric="mcrmse",
            outcome="numbers",
            label=Label(columns=("cohesion", "syntax")),
            centre=(3.0, 10.0),
            spread=(0.7, 20.0),
        ),
        Competition(
            **BASE | {"name": "amounts"},
            metric="rmsle",
            outcome="numbers",
            label=Label(columns=("price",), log=True),
            centre=(3.0,),
            spread=(0.7,),
        ),
        Competition(
            **BASE | PAIR | {"name": "pair"},
            metric="pearson",
            outcome="numbers",
            label=Label(columns=("similarity",)),
            centre=(2.5,),
            spread=(1.4,),
        ),
        Competition(
            **BASE
            | {"name": "choices", "task": "choices"}
            | {"texts": {"question": "q", "A": "A", "B": "B", "C": "C"}},
            metric="map@3",
            outcome="choice",
            options=("A", "B", "C"),
            label=Label("answer"),
            answers={"prediction": "top 3"},
        ),
        Competition(
            **BASE | {"name": "winner", "task": "preference", "texts": {"prompt": "p", "a": "a", "b": "b"}},
            metric="accuracy",
            classes=("model_a", "model_b"),
            label=Label("winner"),
            answers={"winner": "label"},
        ),
    )
}


def labelled_rows(competition: Competition, count: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows as train.parquet has them, two to a group, and the means from which their labels were drawn."""
    rng, family = np.random.default_rng(seed), competition.family
    truth = family.means(rng.normal(size=(count, family.outputs)) - (1.0 if competition.outcome == "labels" else 0.0))
    if competition.outcome in ("classes", "choice"):
        labels = (truth.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    elif competition.outcome == "ordered":
        truth = np.sort(truth, axis=1)[:, ::-1]
        labels = competition.scores[0] + (truth > rng.random((count, 1))).sum(axis=1, keepdims=True).astype(float)
    elif competition.outcome == "labels":
        labels = (truth > rng.random(truth.shape)).astype(float)
        if family.outputs > 1:
            labels[rng.random(labels.shape) < 0.05] = np.nan
    else:
        labels = family.means(family.link(truth) + 0.5 * rng.normal(size=truth.shape))
    words = rng.integers(20, size=(count, 6))
    texts = {name: [[f"{name} " + " ".join(f"w{w}" for w in row)] for row in words] for name in competition.texts}
    frame = pl.DataFrame({"id": [f"r{i}" for i in range(count)], "label": labels, **texts})
    if competition.kind.group is None:
        frame = frame.with_columns(pl.Series("group", np.arange(count) // 2))
    return frame, truth


def laid_out(competition: Competition, folder: Path, train: int, test: int) -> None:
    """Writes train.csv, test.csv and sample_submission.csv of so many rows; words tell of the answer."""
    rows, _ = labelled_rows(competition, train + test, 5)
    labels = rows["label"].to_numpy()
    strata = competition.family.strata(labels)
    texts = {
        column: [f"{' '.join(turns)} about{stratum}" for (turns, stratum) in zip(rows[name], strata, strict=True)]
        for name, column in competition.texts.items()
    }
    if competition.outcome in ("classes", "choice"):
        answers = {competition.label.column: [competition.label_values[place] for place in labels]}
    else:
        names = competition.label.columns or (competition.label.column,)
        written = [[None if np.isnan(v) else f"{v:g}" for v in labels[:, c]] for c in range(labels.shape[1])]
        answers = dict(zip(names, written, strict=True))
    frame = pl.DataFrame({"id": rows["id"], **texts, **answers})
    folder.mkdir()
    frame.head(train).write_csv(folder / "train.csv")
    asked = frame.tail(test).drop(answers)
    asked.write_csv(folder / "test.csv")
    columns = submission_columns(competition)
    lines = [[each, *("0" for _ in columns)] for each in asked["id"]]
    write_csv(folder / "sample_submission.csv", [["id", *columns], *lines])


def said(competition: Competition, truth: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """What a member says that knows the truth but for some noise."""
    family = competition.family
    return family.means(family.link(truth) + noise * np.random.default_rng(seed).normal(size=truth.shape))
