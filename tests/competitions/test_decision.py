"""Decisions: what a metric that scores labels gets, fitted on other rows, never worse in-sample than the plain one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from outcomes import COMPETITIONS, labelled_rows, said

from pipeline.competitions.decision import PLAIN, Decision, fit_decision
from pipeline.competitions.metrics import metric_named
from pipeline.ensemble.scoring import constant, crossed, score

DECIDED = ["decided", "binary", "ordered", "winner"]


@pytest.mark.parametrize("name", DECIDED)
def test_a_fitted_decision_is_never_worse_on_its_own_rows(name: str) -> None:
    competition = COMPETITIONS[name]
    metric = metric_named(competition.metric)
    for seed in range(3):
        rows, truth = labelled_rows(competition, 300, seed)
        labels, means = rows["label"].to_numpy(), said(competition, truth, 0.7, seed)
        fitted = fit_decision(labels, means, competition)
        found = metric.score(labels, fitted.apply(means, competition))
        assert metric.sign * found >= metric.sign * metric.score(labels, PLAIN.apply(means, competition))


def test_thresholds_find_rare_labels() -> None:
    competition = COMPETITIONS["binary"]
    rng = np.random.default_rng(0)
    chance = rng.beta(0.5, 6.0, size=(4000, 1))
    labels = (rng.random((4000, 1)) < chance).astype(float)
    metric = metric_named("f1")
    plain = metric.score(labels, PLAIN.apply(chance, competition))
    tuned = score(labels, crossed(labels, chance, np.arange(4000) % 5, competition), np.arange(4000), competition)
    assert tuned > plain + 0.1


def test_cuts_of_scores_are_learned_and_lie_in_order() -> None:
    competition = COMPETITIONS["ordered"]
    rows, truth = labelled_rows(competition, 2000, 1)
    labels = rows["label"].to_numpy()
    # A shrunken model: its expected scores crowd in the middle, so that rounding finds few extreme scores.
    family = competition.family
    means = family.means(0.4 * family.link(truth))
    decision = fit_decision(labels, means, competition)
    assert list(decision.values) == sorted(decision.values) and len(decision.values) == 4
    metric = metric_named("qwk")
    tuned = crossed(labels, means, np.arange(2000) % 5, competition)
    assert metric.score(labels, tuned.decided) > metric.score(labels, PLAIN.apply(means, competition)) + 0.02
    assert set(np.unique(tuned.decided)) <= set(map(float, competition.scores))


def test_plain_decisions() -> None:
    three, ordered, binary = COMPETITIONS["classes"], COMPETITIONS["ordered"], COMPETITIONS["binary"]
    assert PLAIN.apply(np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]]), three).tolist() == [1, 0]
    assert PLAIN.apply(np.array([[0.5], [0.49]]), binary).tolist() == [[1.0], [0.0]]
    assert PLAIN.apply(np.array([[1, 1, 0.6, 0.0], [0, 0, 0, 0]]), ordered).tolist() == [[4.0], [1.0]]
    assert Decision((0.0, -9.0, 0.0)).apply(np.array([[0.2, 0.5, 0.3]]), three).tolist() == [2]
    numbers = np.array([[1.0, 2.0]])
    assert PLAIN.apply(numbers, COMPETITIONS["numbers"]) is numbers
    for competition in (three, ordered, binary):
        PLAIN.apply(np.full((1, len(competition.outputs)), np.nan), competition)  # no answer is no error


@pytest.mark.parametrize("name", ["classes", "labels", "numbers", "choices", "winner"])
def test_metrics_of_means_and_accuracy_need_no_fit(name: str) -> None:
    competition = COMPETITIONS[name]
    rows, truth = labelled_rows(competition, 60, 0)
    assert fit_decision(rows["label"].to_numpy(), truth, competition) is PLAIN


def test_the_constant_predictor_decides_as_suits_it_best() -> None:
    competition = COMPETITIONS["binary"]
    labels = (np.arange(100)[:, None] % 10 == 0).astype(float)
    answers = constant(competition.family.prior(labels), labels, competition)
    assert answers.decided.all()  # "all of them" has an F1, "none" has not
    assert score(labels, answers, np.arange(100), competition) == pytest.approx(2 * 0.1 / 1.1)
    accuracy = constant(competition.family.prior(labels), labels, replace(competition, metric="accuracy"))
    assert not accuracy.decided.any()
