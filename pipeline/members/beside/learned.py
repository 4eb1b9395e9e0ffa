"""The rows from elsewhere that a fold model learns: read, kept from what it is scored on, and given their answers.

The stage `extra` has prepared them (pipeline/members/beside/extra.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.family import Categorical, Family, Gaussian, Ordinal
from pipeline.data.split import Extra, Lessons
from pipeline.errors import PodiumError
from pipeline.files import sha256_file
from pipeline.members.context import Start


def rows_of(start: Start, fold: int | None, artifacts: Artifacts) -> dict[str, pl.DataFrame]:
    """Returns the rows of each source that the member learns, without those that are nearly a row of `fold`.

    Raises: PodiumError where the stage has made other rows since the start file was written.
    """
    found = {}
    for name, source in start.extra.items():
        file = artifacts.extra(name)
        if not file.is_file() or sha256_file(file) != source.data:
            raise PodiumError(f"{file}: has changed since {start.member}'s start file was written; run `dvc repro`")
        rows = pl.read_parquet(file)
        found[name] = rows if fold is None else rows.filter(~pl.col("apart").list.contains(fold))
    return found


def asked(start: Start, fold: int, rows: pl.DataFrame, artifacts: Artifacts) -> pl.DataFrame:
    """Returns id and fields of all that a student's fold model learns: `rows` of the competition, then the others."""
    columns = ["id", *start.competition.kind.fields]
    return pl.concat([each.select(columns) for each in (rows, *rows_of(start, fold, artifacts).values())])


def learned(start: Start, fold: int | None, lessons: Lessons | None, artifacts: Artifacts) -> Extra | None:
    """Returns the rows from elsewhere with their answers and weights; None where there are none.

    Where a source has no labels, its answers are the mean of what the teachers say, who have not seen the fold either;
    rows of which they are not sure enough are left out.
    """
    family, parts, told = start.competition.family, [], {}
    for name, rows in rows_of(start, fold, artifacts).items():
        source, unsure = start.extra[name], 0
        if source.labels == "given":
            labels = rows["label"].to_numpy()
            statistic = family.statistic(labels)
        else:
            if source.labels == "none":
                assert lessons is not None
                means = lessons.means[lessons.of(rows["id"])]
                sure = certainty(family, means) >= source.confidence if source.confidence else np.ones(len(rows), bool)
                unsure = int((~sure).sum())
                rows, means = rows.filter(pl.Series(sure)), means[sure]
            else:
                means = rows.select(start.competition.outputs).to_numpy()
            labels = likeliest(family, means)
            statistic = family.link(means) if isinstance(family, Gaussian) else means
        told[name] = {"rows": len(rows), "unsure": unsure}
        fields = rows.select("id", *start.competition.kind.fields)
        parts.append((fields, labels, statistic, np.full(len(rows), source.weight)))
    if not parts:
        return None
    frames, labels, statistics, weights = zip(*parts, strict=True)
    joined = [np.concatenate(each) for each in (labels, statistics, weights)]
    return Extra(pl.concat(frames), joined[0], joined[1], joined[2], told)


def certainty(family: Family, means: np.ndarray) -> np.ndarray:
    """Returns how far the two likeliest answers are apart, (rows,); of labels and steps the mean of |2 p - 1|."""
    if isinstance(family, Categorical):
        ordered = np.sort(means, axis=1)
        return np.asarray(ordered[:, -1] - ordered[:, -2])
    return np.abs(2 * means - 1).mean(axis=1)


def likeliest(family: Family, means: np.ndarray) -> np.ndarray:
    """Returns the label, as train.parquet has it, that is nearest to means; shares of several labels stay shares."""
    if isinstance(family, Categorical):
        return means.argmax(axis=1).astype(np.int16)
    return np.rint(family.expected(means)) if isinstance(family, Ordinal) else means


def said(start: Start, extra: Extra | None, label: str) -> dict[str, Any]:
    """Returns what a receipt tells of rows from elsewhere, and prints it."""
    if extra is None:
        return {}
    for name, each in extra.told.items():
        unsure = f", {each['unsure']} left out: the teachers are not sure" if each["unsure"] else ""
        print(f"{label}: {name}: {each['rows']} rows from elsewhere{unsure}, weight {start.extra[name].weight}")
    return {"extra": extra.told}
