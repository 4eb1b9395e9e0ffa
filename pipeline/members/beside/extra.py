"""Rows from elsewhere, checked against the scored competition: their form, and near duplicates of what is scored.

python -m stages.extra

A row that is nearly one of the holdout's or of the test file's (near_duplicates.py) is dropped; one that is nearly one
of fold k's stays away from fold model k. So does a row that a model has written from rows of fold k (made.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.artifacts import HOLDOUT
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.ingest.prepare import read_test, read_train
from pipeline.members.beside.made import EXAMPLES, WRITTEN, check_form_of_answers, judged
from pipeline.members.external import read_predictions
from pipeline.settings.extra import ExtraRows

TEST = -2
"""Stands for the test file where -1 stands for the holdout."""
UNEVEN = 0.01
"""So unlikely a table of answers by position is told."""


@dataclass(frozen=True)
class Learnable:
    """A source that may be learned."""

    rows: pl.DataFrame
    """See Artifacts.extra."""
    told: dict[str, Any]
    """`rows`, `dropped` (by `holdout` and `test`), `apart` (by fold), `answers` where an output is a position: their
    counts, and `p` of all being equally likely; and `made` where a model has written them."""


def check_form(name: str, source: ExtraRows, competition: Competition) -> Competition:
    """Returns how a source is read, with the scored competition's classes and scale.

    Raises: PodiumError where its fields, outcome or outputs are not those of `competition`.
    """
    key = f"extra.{name}.competition"
    its = load_competition(source.competition, key)
    for what, own, wanted in (
        ("task", its.task, competition.task),
        ("texts", sorted(its.texts), sorted(competition.texts)),
        ("outcome", its.outcome, competition.outcome),
    ):
        if own != wanted:
            raise PodiumError(f"params.yaml: {key}: {what}: expected {wanted}, as in the scored one, found {own}")
    if source.confidence and competition.outcome == "numbers":
        raise PodiumError(f"params.yaml: extra.{name}.confidence: numbers do not tell how sure they are: leave it out")
    if competition.classes:
        its = replace(its, classes=competition.classes)
    if list(its.outputs) != list(competition.outputs):
        raise PodiumError(
            f"params.yaml: {key}: expected the answers {list(competition.outputs)}, found {list(its.outputs)}"
        )
    return replace(its, centre=competition.centre, spread=competition.spread)


def prepare_extra(
    name: str, source: ExtraRows, competition: Competition, train: pl.DataFrame, folds: pl.Series, test: pl.DataFrame
) -> Learnable:
    """Returns the rows of a source that may be learned.

    train, test: the scored competition's rows; folds (rows of train,).

    Raises: PodiumError for the first thing that is wrong with its file, or where no row is left.
    """
    from pipeline.data.near_duplicates import near_duplicates  # datasketch is slow to load, and make check does without

    its = check_form(name, source, competition)
    file = Path(source.path) / its.train
    fields, made = competition.kind.fields, None
    if source.made:
        its = replace(its, ignored=(*its.ignored, *WRITTEN, EXAMPLES), group=(), time=None)  # they are in no fold
        known = dict(zip(train["id"], folds, strict=True))
        rows, made = judged(file, _read(file, source, its, competition), its, known)
    else:
        rows = _read(file, source, its, competition)
    scored = pl.concat([train.select(fields), test.select(fields)])
    parts = [*folds.to_list(), *[TEST] * len(test)]
    near = near_duplicates(rows.select(fields), scored, parts, competition.kind)
    if source.made:
        near = [each | set(seen) for each, seen in zip(near, rows["seen"], strict=True)]
        rows = rows.drop("seen")
    dropped = {word: sum(part in each for each in near) for word, part in (("holdout", HOLDOUT), ("test", TEST))}
    kept = pl.Series([not each & {HOLDOUT, TEST} for each in near], dtype=pl.Boolean)
    apart = [sorted(each) for each in near]
    rows = rows.with_columns(pl.Series("apart", apart, dtype=pl.List(pl.Int8))).filter(kept)
    if not len(rows):
        raise PodiumError(
            f"{file}: every row is nearly one of the holdout or the test file, or written from the holdout"
        )
    if made:
        made["form"] = check_form_of_answers(file, rows, train.filter(folds != HOLDOUT), competition)
    by_fold = {str(fold): int(rows["apart"].list.contains(fold).sum()) for fold in sorted(set(folds) - {HOLDOUT})}
    told = {
        "rows": len(rows),
        "dropped": dropped,
        "apart": by_fold,
        "answers": _positions(rows, competition),
        "made": made,
    }
    ids = pl.concat_str(pl.lit(f"{name}:"), pl.col("id")).alias("id")
    return Learnable(rows.with_columns(ids), told)


def _read(file: Path, source: ExtraRows, its: Competition, competition: Competition) -> pl.DataFrame:
    """Returns id, label or a column per output, and the fields."""
    fields = ["id", *competition.kind.fields]
    if source.labels == "given":
        rows, found = read_train(file, its)
        if found.outputs != competition.outputs:
            raise PodiumError(f"{file}: expected the answers {list(competition.outputs)}, found {list(found.outputs)}")
        return rows.select("id", "label", *competition.kind.fields)
    rows = read_test(file, replace(its, ignored=("*",), group=(), time=None), strict=True).select(fields)
    if source.labels == "soft":
        means = read_predictions(file, replace(competition, id=its.id))
        return rows.join(means, on="id", how="left", maintain_order="left")
    return rows


def _positions(rows: pl.DataFrame, competition: Competition) -> dict[str, Any] | None:
    """Returns how often each side or option is the answer, and how likely so uneven a table is by chance."""
    from scipy.stats import chisquare  # slow to load

    task = competition.kind
    if "label" not in rows.columns or not (task.options or task.decisive or competition.task == "preference"):
        return None
    outputs = range(len(task.options)) if task.options else task.decisive or (0, 1)
    counts = [int((rows["label"] == each).sum()) for each in outputs]
    p = float(chisquare(counts).pvalue) if sum(counts) else 1.0
    return {"counts": {competition.outputs[each]: n for each, n in zip(outputs, counts, strict=True)}, "p": p}


def sentence(name: str, told: dict[str, Any]) -> str:
    """Returns what is to be said of a prepared source, in one line."""
    dropped, apart, answers = told["dropped"], told["apart"], told["answers"]
    what = "near duplicates, or written from its rows" if told["made"] else "near duplicates"
    line = (
        f"{name}: {told['rows']} rows; {what}: {dropped['holdout']} of the holdout and {dropped['test']} of the test "
        f"file dropped, {', '.join(f'{n} kept from fold {fold}' for fold, n in apart.items())}"
    )
    if made := told["made"]:
        by = ", ".join(f"{who} {count}" for who, count in made["by"].items())
        line += f"; made by {by}, {made['refused']} refused by the judge, {made['repeated']} repeated"
        if made["form"]:
            gains = (f"{gain.mean:.3f} ± {gain.error:.3f}" for gain in made["form"].values())
            line += "; lengths and positions alone gain {} nats, on the own rows {}".format(*gains)
    if answers is None:
        return line
    counted = ", ".join(f"{output} {n}" for output, n in answers["counts"].items())
    uneven = " (uneven: a model may learn the position)" if answers["p"] < UNEVEN else ""
    return f"{line}; answers by position: {counted}{uneven}"
