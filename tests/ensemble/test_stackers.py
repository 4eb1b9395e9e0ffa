from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import CLASSES, geometric_mean, preference_rows, probabilities, to_logits

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.data.rows import swapped
from pipeline.ensemble import fitting, stackers
from pipeline.ensemble.fitting import fit_stacker, greedy_weights
from pipeline.ensemble.nested import nested_candidates, simplest_of_the_best
from pipeline.ensemble.stack_inputs import SecondLevel, StackInputs, stack_inputs

LOG_LOSS = METRICS["log_loss"]
CANDIDATES = ("mean", "greedy", "weights", "logistic", "lightgbm")
SHARPNESS = (1.0, 0.6)


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return preference_rows(300, seed=4)


def said(labels: np.ndarray) -> list[np.ndarray]:
    return [probabilities(labels, 3, sharpness, seed) for seed, sharpness in enumerate(SHARPNESS)]


def inputs_of(rows: pl.DataFrame, competition: Competition, features: bool = True) -> tuple[StackInputs, np.ndarray]:
    labels = rows["label"].to_numpy()
    return stack_inputs(said(labels), rows, competition, features), labels


def parts_of(count: int) -> np.ndarray:
    return np.arange(count) // 2 % 4  # rows 2i and 2i + 1 share a prompt


def second(inputs: StackInputs, labels: np.ndarray) -> SecondLevel:
    return SecondLevel(inputs, labels, parts_of(len(labels)), np.arange(len(labels)) // 2)


@pytest.mark.parametrize("name", CANDIDATES)
def test_mirrored_rows_get_mirrored_answers(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    inputs, labels = inputs_of(rows, lmsys)
    fitted = fit_stacker(name, second(inputs, labels), lmsys, 1, 0)
    straight = stackers.predict(fitted.model, inputs, lmsys)
    members = [lmsys.mirrored(each) for each in said(labels)]
    other = stackers.predict(fitted.model, stack_inputs(members, swapped(rows, lmsys.kind), lmsys, True), lmsys)
    assert np.abs(lmsys.mirrored(other) - straight).max() < 1e-12
    for answer in (straight, fitted.inner):
        assert np.abs(answer.sum(axis=1) - 1).max() < 1e-9


@pytest.mark.parametrize("name", CANDIDATES)
def test_training_on_mirrored_rows_gives_the_same_stacker(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    """Which answer stood left in the training rows must not matter; LightGBM's draws of rows differ, so it is near."""
    inputs, labels = inputs_of(rows, lmsys)
    members = [lmsys.mirrored(each) for each in said(labels)]
    turned_rows = swapped(rows, lmsys.kind)
    turned, turned_labels = stack_inputs(members, turned_rows, lmsys, True), np.array([1, 0, 2])[labels]
    answers = [
        stackers.predict(fit_stacker(name, second(part, truth), lmsys, 1, 0).model, inputs, lmsys)
        for part, truth in ((inputs, labels), (turned, turned_labels))
    ]
    assert np.abs(answers[0] - answers[1]).max() < (0.1 if name == "lightgbm" else 1e-4)


@pytest.mark.parametrize("name", CANDIDATES)
def test_a_saved_stacker_answers_the_same(name: str, rows: pl.DataFrame, lmsys: Competition, tmp_path: Path) -> None:
    inputs, labels = inputs_of(rows, lmsys)
    model = fit_stacker(name, second(inputs, labels), lmsys, 1, 0).model
    again = stackers.load(stackers.save(model, tmp_path, "trees.txt"), tmp_path, 1)
    assert np.array_equal(stackers.predict(again, inputs, lmsys), stackers.predict(model, inputs, lmsys))


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_same_rows_give_the_same_bytes(name: str, rows: pl.DataFrame, lmsys: Competition, tmp_path: Path) -> None:
    inputs, labels = inputs_of(rows, lmsys)
    saved = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        model = fit_stacker(name, second(inputs, labels), lmsys, 1, 0).model
        saved.append((stackers.save(model, tmp_path / run, "t"), [f.read_bytes() for f in (tmp_path / run).iterdir()]))
    assert saved[0] == saved[1]


def test_the_equal_mean_is_the_mean_of_logits(rows: pl.DataFrame, lmsys: Competition) -> None:
    labels = rows["label"].to_numpy()
    each = said(labels)
    for members in (each[:1], each):
        inputs = stack_inputs(members, rows, lmsys, False)
        mean = stackers.predict(stackers.equal_mean(len(members), 3), inputs, lmsys)
        assert np.abs(mean - geometric_mean(members)).max() < 1e-9


def test_greedy_weights_are_shares_that_beat_the_best_member(rows: pl.DataFrame) -> None:
    labels = rows["label"].to_numpy()
    noise = probabilities(np.zeros_like(labels), 3, 0.0, 9)
    logits = np.stack([to_logits(each) for each in (*said(labels), noise)], axis=1)
    shares = greedy_weights(logits, labels, CLASSES)
    assert shares.sum() == pytest.approx(1.0)
    assert (shares >= 0).all()
    assert shares[0] > shares[1] > shares[2]
    greedy = stackers.scalar_weights("greedy", shares, 3)
    inputs = StackInputs(logits, logits, np.empty((300, 0)), np.empty((300, 0)))
    members = [LOG_LOSS.score(labels, each) for each in said(labels)]
    rules = load_competition("spooky")
    assert LOG_LOSS.score(labels, stackers.predict(greedy, inputs, rules)) < min(members)


@pytest.mark.parametrize("name", ["mean", "greedy", "logistic"])
def test_an_overconfident_member_is_mended(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    labels = rows["label"].to_numpy()
    sure = probabilities(labels, 3, 0.7, 0) ** 4
    sure /= sure.sum(axis=1, keepdims=True)
    nested = nested_candidates([name], second(stack_inputs([sure], rows, lmsys, False), labels), lmsys, 1, 0)[
        name
    ].means
    assert LOG_LOSS.score(labels, nested) < LOG_LOSS.score(labels, sure) - 0.05


@pytest.mark.parametrize("present", [(0, 2), (1,), (0, 1)])
@pytest.mark.parametrize("name", CANDIDATES)
def test_a_class_that_never_occurs_keeps_its_column(name: str, present: tuple[int, ...], spooky: Competition) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(present, size=80)
    frame = pl.DataFrame({"id": [str(i) for i in range(80)], "text": [["x"]] * 80})
    inputs = stack_inputs([probabilities(labels, 3, 1.0, 0)], frame, spooky, True)
    rows = SecondLevel(inputs, labels, np.arange(80) % 4, np.arange(80))
    answer = stackers.predict(fit_stacker(name, rows, spooky, 1, 0).model, inputs, spooky)
    assert answer.shape == (80, 3)
    assert (answer > 0).all()
    missing = [c for c in range(3) if c not in present]
    assert answer[:, missing].max() < (0.02 if name in ("weights", "logistic", "lightgbm") else 1.0)


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_outer_fold_never_teaches_its_own_stacker(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    """Changing the labels of one part must leave the predictions for that part as they are."""
    inputs, labels = inputs_of(rows, lmsys)
    parts = parts_of(len(labels))
    turned = np.where(parts == 1, (labels + 1) % 3, labels)
    before = nested_candidates([name], second(inputs, labels), lmsys, 1, 0)[name].means
    after = nested_candidates([name], second(inputs, turned), lmsys, 1, 0)[name].means
    assert np.array_equal(before[parts == 1], after[parts == 1])
    assert not np.array_equal(before[parts == 0], after[parts == 0])


@pytest.mark.parametrize("name", CANDIDATES)
def test_inner_predictions_come_from_the_other_inner_parts(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    """On labels that are pure noise they must not look better than the members' own noise does when fitted honestly."""
    inputs, _ = inputs_of(rows, lmsys)
    noise = np.random.default_rng(8).permutation(rows["label"].to_numpy())
    fitted = fit_stacker(name, second(inputs, noise), lmsys, 1, 0)
    prior = np.tile(np.bincount(noise, minlength=3) / 300, (300, 1))
    assert LOG_LOSS.score(noise, fitted.inner) > LOG_LOSS.score(noise, prior) - 0.01


@pytest.mark.parametrize("name", ["weights", "logistic"])
def test_where_rows_are_many_a_part_of_them_finds_the_strength_and_all_are_fitted(
    name: str, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = preference_rows(1200, seed=8)
    inputs, labels = inputs_of(many, lmsys)
    rows = second(inputs, labels)
    plain = fit_stacker(name, rows, lmsys, 1, 0)
    monkeypatch.setattr(fitting, "MOST_SOUGHT", 900)
    sparing = fit_stacker(name, rows, lmsys, 1, 0)
    plainly, sparingly = (lmsys.family.losses(labels, each.inner).mean() for each in (plain, sparing))
    assert plainly != sparingly
    assert sparingly < plainly + 0.002
    monkeypatch.setattr(fitting, "POWERS", (-1.0, -0.999))  # other labels would lead to another strength
    part, turned = rows.parts == 0, np.where(rows.parts == 0, (labels + 1) % 3, labels)
    inner = [fit_stacker(name, second(inputs, each), lmsys, 1, 0).inner[part] for each in (labels, turned)]
    assert np.array_equal(*inner)


def test_the_simplest_candidate_within_one_paired_error_wins() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1.0, 1.0, 1000)
    noise = rng.normal(0, 1.0, 1000)
    alone = np.arange(1000)
    assert simplest_of_the_best({"mean": base, "logistic": base - 0.01 + noise}, alone) == "mean"
    assert simplest_of_the_best({"mean": base, "logistic": base - 0.01}, alone) == "logistic"
    assert simplest_of_the_best({"mean": base, "logistic": base + 0.01}, alone) == "mean"


def test_rows_that_share_a_prompt_are_less_evidence() -> None:
    gain = np.random.default_rng(1).normal(size=40)
    gain += 0.1 - gain.mean()  # 40 prompts say 0.1 with an error of 0.14; 1,000 rows would say 0.1 with one of 0.03
    losses = {"mean": np.repeat(gain, 25), "logistic": np.zeros(1000)}
    assert simplest_of_the_best(losses, np.arange(1000)) == "logistic"
    assert simplest_of_the_best(losses, np.repeat(np.arange(40), 25)) == "mean"
