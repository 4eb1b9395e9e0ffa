"""Rows that a model has written (`made: true` of a source under `extra`), before they are learned.

python -m stages.extra

Beside the competition's own columns their file has `generator`, who wrote a row, and `verdict`, what a judge says of
it: keep or drop. What is dropped goes, and so does a row that repeats another. `examples`, where it was written from
training rows, names them: it may carry their labels, so it stays away from the fold model that is scored on them. And
an answer must not show in the form: a probe that reads lengths and positions alone may gain no more than it does on the
competition's own rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.competitions.family import Categorical
from pipeline.competitions.task import Competition
from pipeline.data.rows import condensed, field_characters, joined
from pipeline.errors import PodiumError
from pipeline.ingest.cells import quoted, read_header, scan_by_hand

WRITTEN = ("generator", "verdict")
"""Columns beside the competition's."""
EXAMPLES = "examples"
"""Column with a JSON list of the ids of the training rows from which a row was written, where it was from some."""
VERDICTS = ("keep", "drop")
LEAST, MOST, PARTS = 50, 5000, 5
"""Rows that the probe needs and looks at most, and parts of its cross-validation."""
ERRORS = 2.0
"""By so many standard errors a gain must be larger to count."""


class Gain(NamedTuple):
    """What the probe wins over the constant answer, in nats per row."""

    mean: float
    error: float


def judged(
    file: Path, rows: pl.DataFrame, its: Competition, folds: Mapping[str, int]
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Returns the rows that are kept, with `seen`, the folds of their examples; and `by` (generator -> kept rows), how
    many the judge `refused`, and `repeated`.

    folds: id of a training row -> its fold.

    Raises: PodiumError for a missing column, a verdict that is none, an example that is no training row, or where no
    row is kept.
    """
    header = read_header(file, its)
    if lacking := [each for each in WRITTEN if each not in header]:
        raise PodiumError(f"{file}: expected a column {lacking[0]}, as made rows have, found {', '.join(header)}")
    columns = [*WRITTEN, *([EXAMPLES] if EXAMPLES in header else [])]
    told = scan_by_hand(file, header, [its.id, *columns], its, strict=True).collect(engine="streaming")
    for id_, verdict in told.select(its.id, "verdict").iter_rows():
        if verdict not in VERDICTS:
            raise PodiumError(f'{file}: verdict of row {id_}: expected {" or ".join(VERDICTS)}, found "{verdict}"')
    cells = told[EXAMPLES] if EXAMPLES in told.columns else [""] * len(told)
    seen = [
        _folds_of(cell, f"{file}: examples of row {id_}", folds) for id_, cell in zip(told[its.id], cells, strict=True)
    ]
    rows = rows.with_columns(told["generator"], pl.Series("seen", seen, dtype=pl.List(pl.Int8)))
    kept = rows.filter(told["verdict"] == "keep")
    if not len(kept):
        raise PodiumError(
            f"{file}: verdict: the judge drops all {len(rows)} rows; look at some, and take another judge"
        )
    texts = pl.concat_list(condensed(joined(field)) for field in its.kind.fields).hash()
    different = kept.with_columns(texts.alias("_texts")).unique("_texts", keep="first", maintain_order=True)
    by = dict(different["generator"].value_counts(sort=True).iter_rows())
    counts = {"by": by, "refused": len(rows) - len(kept), "repeated": len(kept) - len(different)}
    return different.drop("_texts", "generator"), counts


def _folds_of(cell: str, where: str, folds: Mapping[str, int]) -> list[int]:
    try:
        ids = json.loads(cell or "[]")
    except ValueError:
        ids = None
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise PodiumError(f'{where}: expected a JSON list of ids, such as ["17", "23"], found {quoted(cell)}')
    if unknown := [each for each in ids if each not in folds]:
        raise PodiumError(f"{where}: expected ids of training rows, found {quoted(unknown[0])}, which is none")
    return sorted({folds[each] for each in ids})


def check_form_of_answers(
    file: Path, made: pl.DataFrame, train: pl.DataFrame, competition: Competition
) -> dict[str, Gain] | None:
    """Returns what the probe gains on `made` rows and on those of `train`; None where it cannot be asked.

    Raises: PodiumError where it gains more on made rows.
    """
    if not isinstance(competition.family, Categorical) or min(len(made), len(train)) < LEAST:
        return None
    gains = {"made": form_gain(made, competition), "train": form_gain(train, competition)}
    more = gains["made"].mean - max(gains["train"].mean, 0.0)  # below 0 it has learned noise by heart
    if more > ERRORS * float(np.hypot(gains["made"].error, gains["train"].error)):
        raise PodiumError(
            f"{file}: the answer shows in the form: a probe of lengths and positions gains "
            f"{gains['made'].mean:.3f} ± {gains['made'].error:.3f} nats, on the competition's own rows "
            f"{gains['train'].mean:.3f} ± {gains['train'].error:.3f}; let right and wrong ones be as long, in any order"
        )
    return gains


def form_gain(rows: pl.DataFrame, competition: Competition) -> Gain:
    """Returns what a linear model of the fields' lengths wins, cross-validated; the constant answer knows positions."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    rows = rows.head(MOST)
    labels, outputs = rows["label"].to_numpy(), len(competition.outputs)
    lengths = np.log1p(np.stack(list(field_characters(rows, competition.kind.fields).values()), axis=1))
    spread = lengths.std(axis=0)
    features = (lengths - lengths.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    sides = competition.options or competition.kind.sides
    if sides:
        places = [competition.kind.fields.index(each) for each in sides]
        features = np.hstack([features, lengths[:, places] == lengths[:, places].max(axis=1, keepdims=True)])
    gains = np.empty(len(rows))
    for learned, asked in StratifiedKFold(PARTS, shuffle=True, random_state=0).split(features, labels):
        model = LogisticRegression(max_iter=500).fit(features[learned], labels[learned])
        said = np.full((len(asked), outputs), 1e-6)
        said[:, model.classes_] = model.predict_proba(features[asked])
        constant = np.tile((np.bincount(labels[learned], minlength=outputs) + 0.5) / len(learned), (len(asked), 1))
        gains[asked] = competition.family.losses(labels[asked], constant) - competition.family.losses(
            labels[asked], said
        )
    return Gain(float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains))))
