"""Tabular members of every kind of row and answer but votes and classes of one text, which test_model.py has."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from support import preference_rows
from tabular_models import BOTH, MODELS, fitted

from pipeline.competitions.task import Competition, Label
from pipeline.data.rows import swapped
from pipeline.models.tabular.model import load_tabular

NOISE = ["the", "of", "she", "saw"]
THINGS = ["raven", "tentacle", "monster", "house", "sea", "mountain"]
LABELS = Label(columns=("raven", "tentacle", "monster"))
PAIR = {"a": "a", "b": "b"}
OPTIONS = ("u", "v", "w")


def competition(task: str, outcome: str, texts: dict[str, str], label: Label, **more: object) -> Competition:
    return Competition("some", task, "metric", "id", texts, label, outcome, **more)  # type: ignore[arg-type]


COMPETITIONS = {
    "labels": competition("text", "labels", {"text": "t"}, LABELS),
    "ordered": competition("text", "ordered", {"text": "t"}, Label(column="score", low=1, high=4)),
    "numbers": competition("text", "numbers", {"text": "t"}, Label(columns=("x", "y")), centre=(1, 9), spread=(1, 2)),
    "classes of two texts": competition("text", "classes", {"text": "t", "more": "m"}, Label(), classes=("no", "yes")),
    "symmetric pair": competition("pair", "classes", PAIR, Label(), classes=("no", "yes"), symmetric=True),
    "symmetric pair with a topic": competition(
        "pair", "numbers", {"topic": "t"} | PAIR, Label(columns=("x",)), symmetric=True, centre=(0,), spread=(1,)
    ),
    "pair": competition("pair", "labels", {"topic": "t"} | PAIR, Label(columns=("same",))),
    "choices": competition(
        "choices", "choice", {"question": "q"} | {name: name for name in OPTIONS}, Label(), options=OPTIONS
    ),
}


def rows_of(contest: Competition, count: int, seed: int) -> pl.DataFrame:
    """Rows with an answer that shows in the things that the texts name."""
    rng = np.random.default_rng(seed)
    things = rng.integers(len(THINGS), size=(count, len(contest.texts)))
    main = things[:, 0]
    if contest.task == "pair":
        first, second = (list(contest.texts).index(side) for side in PAIR)
        things[:, second] = np.where(rng.random(count) < 0.4, things[:, first], things[:, second])
        label = things[:, first] == things[:, second]
        labels = label.astype(np.int16) if contest.outcome == "classes" else label[:, None].astype(float)
    elif contest.task == "choices":
        labels = rng.integers(len(OPTIONS), size=count).astype(np.int16)
        things[np.arange(count), labels + 1] = main
    elif contest.outcome == "labels":
        labels = (main[:, None] == np.arange(3)).astype(float)
    elif contest.outcome == "numbers":
        labels = np.stack([main - 1.0, 9 + main % 2 * 2.0], axis=1)
    else:
        labels = (1 + main[:, None] % 4).astype(float) if contest.outcome == "ordered" else (main > 2).astype(np.int16)
    texts = {
        field: [[" ".join([*rng.choice(NOISE, 3), THINGS[thing]])] for thing in things[:, place]]
        for place, field in enumerate(contest.texts)
    }
    numbers = {"id": [str(i) for i in range(count)], "group": [i // 2 for i in range(count)]}
    return labelled(pl.DataFrame(numbers | texts), labels)


def labelled(rows: pl.DataFrame, labels: np.ndarray) -> pl.DataFrame:
    """`rows` with labels as train.parquet has them."""
    kind = pl.Int16 if labels.ndim == 1 else pl.Array(pl.Float64, labels.shape[1])
    return rows.with_columns(pl.Series("label", labels, dtype=kind))


@pytest.fixture(params=COMPETITIONS)
def contest(request: pytest.FixtureRequest) -> Competition:
    return COMPETITIONS[request.param]


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_and_comes_back_to_the_last_bit(name: str, contest: Competition, tmp_path: Path) -> None:
    train, fresh = rows_of(contest, 240, 0), rows_of(contest, 200, 1)
    model = fitted(name, train, contest)
    model.save(tmp_path / "one")
    fitted(name, train, contest).save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    answer = load_tabular(tmp_path / "one", contest).predict(fresh)
    assert np.array_equal(answer, model.predict(fresh))
    assert answer.shape == (200, len(contest.outputs))
    if name == "everything, logistic":
        family, labels = contest.family, fresh["label"].to_numpy()
        prior = np.tile(family.prior(train["label"].to_numpy()), (200, 1))
        assert family.losses(labels, answer).mean() < 0.9 * family.losses(labels, prior).mean()


def test_strange_texts_are_answered(contest: Competition) -> None:
    """Nothing known, nothing at all, one row, one word throughout the training rows."""
    odd = [[None], [""], [" "], [], ["zyxwvut qwertz"], ["ж" * 100_000], ["你好 😀"]]
    cells = {field: odd[i:] + odd[:i] for i, field in enumerate(contest.texts)}
    strange = pl.DataFrame(cells, schema=dict.fromkeys(cells, pl.List(pl.String)))
    for name in MODELS:
        rows = rows_of(contest, 60, 0)
        for train in (rows, rows.with_columns(pl.lit([""]).alias(field) for field in contest.texts), rows[:1]):
            model = fitted(name, train, contest)
            assert np.isfinite(model.predict(strange)).all()
            assert np.allclose(model.predict(strange[:1]), model.predict(strange)[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_exchanged_texts_of_a_symmetric_pair_get_exactly_the_same_answer(name: str) -> None:
    for each in (contest for contest in COMPETITIONS.values() if contest.symmetric):
        train, fresh = rows_of(each, 200, 0), rows_of(each, 100, 1)
        model = fitted(name, train, each)
        assert np.array_equal(model.predict(swapped(fresh, each.kind)), model.predict(fresh))


@pytest.mark.parametrize("name", MODELS)
def test_permuted_options_get_exactly_the_permuted_answer(name: str) -> None:
    contest = COMPETITIONS["choices"]
    train, fresh = rows_of(contest, 200, 0), rows_of(contest, 101, 1)
    model = fitted(name, train, contest)
    answer = model.predict(fresh)
    assert np.abs(answer.sum(axis=1) - 1).max() < 1e-12
    for order in permutations(range(len(OPTIONS))):
        moved = fresh.with_columns(fresh[OPTIONS[place]].alias(OPTIONS[i]) for i, place in enumerate(order))
        assert np.array_equal(model.predict(moved), answer[:, list(order)])


@pytest.mark.parametrize("name", BOTH)
def test_a_step_of_an_ordered_score_is_less_likely_than_the_one_below(name: str) -> None:
    contest = COMPETITIONS["ordered"]
    train, rng = rows_of(contest, 200, 0), np.random.default_rng(0)
    # Scores between the lowest and the highest are so rare that single heads would contradict each other.
    scores = np.where(rng.random(200) < 0.1, rng.integers(2, 4, 200), rng.choice([1, 4], 200))
    model = fitted(name, labelled(train, scores[:, None].astype(float)), contest)
    assert (np.diff(model.predict(rows_of(contest, 200, 1)), axis=1) <= 0).all()


@pytest.mark.parametrize("name", BOTH)
def test_what_is_not_known_is_left_out_of_its_own_column_alone(name: str) -> None:
    contest = COMPETITIONS["labels"]
    train, fresh = rows_of(contest, 300, 0), rows_of(contest, 200, 1)
    labels, truth = train["label"].to_numpy().copy(), fresh["label"].to_numpy()
    whole = fitted(name, train, contest).predict(fresh)
    labels[np.arange(300) % 3 > 0, 0] = np.nan
    part = fitted(name, labelled(train, labels), contest).predict(fresh)
    assert np.array_equal(part[:, 1:], whole[:, 1:])
    assert abs(part[:, 0].mean() - whole[:, 0].mean()) < 0.05
    assert part[truth[:, 0] == 1, 0].mean() > part[truth[:, 0] == 0, 0].mean() + 0.02


@pytest.mark.parametrize("name", BOTH)
def test_a_column_with_one_outcome_is_answered_by_its_share(name: str) -> None:
    contest = COMPETITIONS["labels"]
    train = rows_of(contest, 200, 0)
    labels = np.tile([0.0, 1.0, np.nan], (200, 1))
    labels[::2, 1] = np.nan
    answer = fitted(name, labelled(train, labels), contest).predict(train)
    assert (answer[:, 0] < 1e-5).all()
    assert (answer[:, 1] > 1 - 1e-5).all()
    assert np.isfinite(answer).all()


@pytest.mark.parametrize("name", BOTH)
def test_shares_between_0_and_1_are_learned_as_shares(name: str) -> None:
    contest = COMPETITIONS["labels"]
    train, fresh = rows_of(contest, 600, 0), rows_of(contest, 200, 1)
    labels = 0.3 + 0.4 * train["label"].to_numpy()
    answer = fitted(name, labelled(train, labels), contest).predict(fresh)
    truth = fresh["label"].to_numpy()
    assert 0.42 < answer[truth == 1].mean() < 0.75
    assert 0.25 < answer[truth == 0].mean() < 0.4


@pytest.mark.parametrize("name", BOTH)
def test_numbers_are_answered_in_their_own_units(name: str) -> None:
    contest = COMPETITIONS["numbers"]
    train, fresh = rows_of(contest, 400, 0), rows_of(contest, 200, 1)
    answer, truth = fitted(name, train, contest).predict(fresh), fresh["label"].to_numpy()
    assert np.abs(answer.mean(axis=0) - truth.mean(axis=0)).max() < 0.5
    assert (np.corrcoef(answer.T, truth.T)[[0, 1], [2, 3]] > 0.2).all()


@pytest.mark.parametrize("name", MODELS)
def test_two_sides_without_ties(name: str, lmsys: Competition) -> None:
    duel = replace(lmsys, classes=lmsys.classes[:2])
    train, fresh = (preference_rows(300, seed).filter(pl.col("label") < 2) for seed in (2, 3))
    model = fitted(name, train, duel)
    answer = model.predict(fresh)
    assert list(model.heads) == ["winner"]
    assert np.abs(answer.sum(axis=1) - 1).max() < 1e-12
    assert np.abs(model.predict(swapped(fresh, duel.kind))[:, ::-1] - answer).max() < 1e-12
    if not name.startswith(("characters", "features")):
        assert (answer.argmax(axis=1) == fresh["label"].to_numpy()).mean() > 0.6
