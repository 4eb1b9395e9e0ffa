"""The second level for every kind of answer: from noisy members to a ladder, its scores and a submission's cells."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from outcomes import COMPETITIONS, labelled_rows, said

from pipeline.competitions.metrics import metric_named
from pipeline.competitions.submission import submission_cells, submission_columns
from pipeline.competitions.task import Competition
from pipeline.ensemble.build_ladder import build_ladder, calibrate
from pipeline.ensemble.ladder import load_ladder, save_ladder
from pipeline.ensemble.nested import compare_candidates
from pipeline.ensemble.table import Holdout, Table
from pipeline.errors import PodiumError
from pipeline.evaluation.cv import Stacked, cv_scores
from pipeline.evaluation.diagnostics import disputed_rows, marginal_gains
from pipeline.evaluation.leak_test import leak_test
from pipeline.kernel.submission import SubmissionForm, read_form, validate_submission, write_submission

MEMBERS = ["good", "fair"]
NOISE = {"good": 0.6, "fair": 1.0}
EVERY = pytest.mark.parametrize("name", list(COMPETITIONS))


def table_of(competition: Competition, count: int, seed: int) -> Table:
    rows, truth = labelled_rows(competition, count, seed)
    says = {member: said(competition, truth, noise, seed + len(member)) for member, noise in NOISE.items()}
    folds = pl.Series("fold", np.arange(count) // 2 % 3)
    return Table(rows.drop("label").with_columns(folds), rows["label"].to_numpy(), says)


def holdout_of(competition: Competition, count: int) -> Holdout:
    rows, truth = labelled_rows(competition, count, 77)
    labels, rows = rows["label"].to_numpy(), rows.drop("label").with_columns(fold=pl.lit(0))
    single = {
        k: Table(rows, labels, {m: said(competition, truth, noise, 100 * k + len(m)) for m, noise in NOISE.items()})
        for k in range(3)
    }
    averages = {
        m: competition.family.means(np.mean([competition.family.link(single[k].probabilities[m]) for k in single], 0))
        for m in MEMBERS
    }
    return Holdout(Table(rows, labels, averages), single)


@pytest.mark.parametrize(("groups", "parts"), [(1, 1), (3, 3), (40, 4)])
def test_a_holdout_is_parted_by_as_many_groups_as_it_has(groups: int, parts: int) -> None:
    holdout = holdout_of(COMPETITIONS["pair"], 80).average
    rows = holdout.rows.with_columns(pl.Series("group", np.arange(80) % groups))
    found = replace(holdout, rows=rows).parts(COMPETITIONS["pair"], 0)
    assert len(np.unique(found)) == parts
    assert all(len(np.unique(found[np.arange(80) % groups == each])) == 1 for each in range(groups))


@pytest.mark.parametrize("known", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("name", ["labels", "numbers"])
def test_an_output_of_which_nothing_is_known_is_left_as_it_is(name: str, known: int) -> None:
    competition = COMPETITIONS[name]
    table = table_of(competition, 120, 0)
    labels = table.labels.copy()
    labels[known:, 0] = np.nan
    found = compare_candidates(replace(table, labels=labels), MEMBERS, ("mean", "lightgbm"), competition, 1, 0)
    assert all(np.isfinite(each.means).all() for each in found.nested.values())
    assert np.isfinite(competition.family.prior(labels)).all()


@EVERY
def test_from_members_to_ladder_and_submission(name: str, tmp_path: Path) -> None:
    competition = COMPETITIONS[name]
    metric = metric_named(competition.metric)
    oof, holdout = table_of(competition, 300, 0), holdout_of(competition, 90)
    trees = ("lightgbm",) if name in ("classes", "labels", "numbers", "choices") else ()  # they take their time
    comparison = compare_candidates(oof, MEMBERS, ("mean", "greedy", "weights", *trees), competition, 1, 0)
    assert list(comparison.nested)[3:] == list(() if competition.family.exchangeable else trees)
    ladder, held = calibrate(build_ladder(oof, MEMBERS, comparison.chosen, competition, 1, 0), holdout, 0)
    scores = cv_scores(Stacked(oof, holdout, None, comparison, ladder, held, 0), {}, {}).as_json()
    json.dumps(scores, allow_nan=False)
    assert metric.better(scores["stack"]["score"], scores["prior"])
    assert metric.better(scores["stack"]["holdout"], scores["prior"])
    assert metric.better(scores["members"]["good"]["score"], scores["prior"])
    # In the loss that the stack minimises it is at least nearly as good as its best member.
    losses = competition.family.losses(oof.labels, comparison.nested["weights"].means).mean()
    assert losses < competition.family.losses(oof.labels, oof.probabilities["good"]).mean() + 0.02
    assert not any(test.leak for test in leak_test(oof, holdout, MEMBERS, competition).values())
    gains = {row["member"]: row for row in marginal_gains(oof, comparison.second, MEMBERS, competition, 1, 0)}
    assert gains["good"]["best"] and np.isfinite(gains["fair"]["added"]["mean"])
    json.dumps(disputed_rows(oof, comparison.nested[comparison.chosen].means, MEMBERS, competition))

    save_ladder(ladder, tmp_path)
    again = load_ladder(tmp_path, competition, 1)
    rows = holdout.average.rows
    available = {member: each.copy() for member, each in holdout.average.probabilities.items()}
    available["fair"][::3] = np.nan
    means, by = again.predict(available, rows)
    assert np.array_equal(means, ladder.predict(available, rows)[0]) and set(by) == {"good", "good+fair"}
    decided = again.decide(means, by)
    assert np.array_equal(decided, ladder.decide(means, by)) and decided.shape == holdout.average.labels.shape

    prior = submission_cells(np.array([ladder.prior]), again.decide(np.array([ladder.prior]), ["prior"]), competition)
    columns = ("id", *submission_columns(competition))
    form = SubmissionForm(
        columns, tuple((each, *(prior[column][0] for column in columns[1:])) for each in rows["id"]), 0
    )
    path, sample = tmp_path / "submission.csv", tmp_path / "sample.csv"
    with sample.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *form.rows])
    means[5] = np.nan  # a row that nobody answers
    write_submission(path, form, rows["id"].to_list(), means, decided, competition)
    assert validate_submission(path, sample, competition) == 90
    assert read_form(path, competition).rows[5] == form.rows[5]
    assert len(set(read_form(path, competition).rows)) > 60


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        ("decided", {"author": "w"}, "column author: expected one of x, y, z, found 'w'"),
        ("ranked", {"author": "a b c d"}, "column author: expected up to 3 different labels"),
        ("ranked", {"author": "a a b"}, "column author: expected up to 3 different labels"),
        ("ranked", {"author": "a  b"}, "column author: expected labels of the training rows, found ''"),
        ("labels", {"toxic": "1.01", "threat": "0"}, "column toxic: expected a probability, found '1.01'"),
        ("binary", {"prediction": "0.5"}, "column prediction: expected one of 0, 1, found '0.5'"),
        ("ordered", {"score": "6"}, "column score: expected one of 1, 2, 3, 4, 5, found '6'"),
        ("ordered", {"score": "3.0"}, "column score: expected one of 1, 2, 3, 4, 5, found '3.0'"),
        ("numbers", {"cohesion": "inf", "syntax": "1"}, "column cohesion: expected a finite number, found 'inf'"),
        ("choices", {"prediction": "D"}, "column prediction: expected labels of the training rows, found 'D'"),
        ("winner", {"winner": "tie"}, "column winner: expected one of model_a, model_b, found 'tie'"),
    ],
)
def test_the_check_knows_what_each_column_must_hold(name: str, cells: dict, message: str, tmp_path: Path) -> None:
    competition = COMPETITIONS[name]
    path = tmp_path / "submission.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", *cells], ["r0", *cells.values()]])
    with pytest.raises(PodiumError) as caught:
        validate_submission(path, path, competition)
    assert message in str(caught.value) and "line 2" in str(caught.value)


def test_options_are_treated_alike() -> None:
    competition = COMPETITIONS["choices"]
    oof = table_of(competition, 200, 3)
    ladder = build_ladder(oof, MEMBERS, "logistic", competition, 1, 0)
    order = [2, 0, 1]
    turned = {member: each[:, order] for member, each in oof.probabilities.items()}
    straight, other = (ladder.predict(each, oof.rows)[0] for each in (oof.probabilities, turned))
    assert np.allclose(other, straight[:, order], atol=1e-12)
