"""Rows from elsewhere, from the user's files to the receipt: what is dropped, what is learned, and what is never."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from networks import encoder, ready, start_of
from outcomes import COMPETITIONS, labelled_rows
from support import preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.data.split import split_rows
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file, write_json, write_parquet
from pipeline.members.beside.extra import check_form, prepare_extra, sentence
from pipeline.members.beside.learned import certainty, learned, likeliest
from pipeline.members.beside.lessons import lessons
from pipeline.members.beside.teach import teach
from pipeline.members.context import FromElsewhere, Start
from pipeline.members.fold import train_fold
from pipeline.members.refit import refit
from pipeline.models.tabular.linear_head import _fitted
from pipeline.models.tabular.model import fit_tabular
from pipeline.settings.extra import ExtraRows

COUNT, FOLDS = 60, np.repeat([0, 1, -1], [24, 24, 12])
ROWS = preference_rows(COUNT, seed=4)
MORE = preference_rows(40, seed=9).with_columns(
    id=pl.format("m{}", pl.int_range(40)), prompt=pl.concat_list(pl.format("Another {}?", pl.int_range(40)))
)
TEST = preference_rows(8, seed=11).with_columns(prompt=pl.concat_list(pl.format("Hidden {}?", pl.int_range(8))))
WORDS = member_settings(
    {"kind": "tabular", "backbone": "none", "model": "logistic", "words": {"longest": 1, "max_features": 500}}
)
FAST = {"epochs": 1}


def source(labels: str = "given", **changed: Any) -> ExtraRows:
    return ExtraRows(path="external/more", competition="external/more/competition.yaml", labels=labels, **changed)


def write_source(rows: pl.DataFrame, competition: Competition, **says: Any) -> None:
    """external/more below the working folder: a YAML file with plain turns, and its training file."""
    folder = Path("external/more")
    folder.mkdir(parents=True, exist_ok=True)
    written = {"name": "more", "task": "preference", "metric": "log_loss", "id": "id", "label": {"column": "label"}}
    written |= {"texts": {"prompt": "prompt", "a": "a", "b": "b"}, "classes": list(competition.outputs)} | says
    (folder / "competition.yaml").write_text(yaml.safe_dump(written))
    columns = {"id": rows["id"]} | {name: rows[name].list.first() for name in ("prompt", "a", "b")}
    if "label" in rows.columns:
        columns["label"] = pl.Series([competition.outputs[each] for each in rows["label"]])
    pl.DataFrame(columns | {name: rows[name] for name in competition.outputs if name in rows.columns}).write_csv(
        folder / "train.csv"
    )


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    monkeypatch.chdir(tmp_path)
    return Artifacts(ready(tmp_path, ROWS, lmsys, FOLDS, backbones))


def prepared(artifacts: Artifacts, competition: Competition, one: ExtraRows) -> dict[str, FromElsewhere]:
    """What the stages `extra` and `start` make of external/more."""
    made = prepare_extra("more", one, competition, ROWS, artifacts.folds()["fold"], TEST)
    write_parquet(made.rows, artifacts.extra("more"))
    return {"more": FromElsewhere(one.labels, one.weight, one.confidence, sha256_file(artifacts.extra("more")))}


def start(name: str, settings: Any, competition: Competition, artifacts: Artifacts, extra: Any = None) -> Start:
    if settings.backbone == "none":
        found = Start(name, settings, competition, 1, extra=extra or {})
    else:
        found = replace(start_of(name, settings, competition, artifacts.root), extra=extra or {})
    write_json(artifacts.start(name), asdict(found))
    return found


def trained(one: Start, artifacts: Artifacts, fold: int = 0) -> dict[str, Any]:
    train_fold(split_rows(artifacts.train().collect(), artifacts.folds(), fold), one, fold, artifacts)
    return read_json(artifacts.receipt(one.member, fold))


def oof(name: str, artifacts: Artifacts) -> pl.DataFrame:
    return pl.read_parquet(artifacts.oof_part(name, 0))


def test_near_duplicates_of_what_is_scored_go_and_those_of_a_fold_stay_away_from_it(
    artifacts: Artifacts, lmsys: Competition
) -> None:
    planted = {"fold 0": ROWS[3], "fold 1": ROWS[30], "holdout": ROWS[55], "test": TEST[2]}
    rows = MORE
    for word, row in planted.items():
        changed = row.select(
            pl.lit(word).alias("id"), pl.lit(0, pl.Int16).alias("label"), *(pl.col(n) for n in ("prompt", "a", "b"))
        )
        rows = pl.concat([rows, changed.select(rows.columns)], how="vertical_relaxed")
    write_source(rows, lmsys)
    made = prepare_extra("more", source(), lmsys, ROWS, artifacts.folds()["fold"], TEST)
    assert made.told["rows"] == len(MORE) + 2 and made.told["dropped"] == {"holdout": 1, "test": 1}
    assert made.told["apart"] == {"0": 1, "1": 1}
    assert not {"more:holdout", "more:test"} & set(made.rows["id"])
    line = sentence("more", made.told)
    assert "1 of the holdout and 1 of the test file dropped, 1 kept from fold 0, 1 kept from fold 1" in line
    extra = prepared(artifacts, lmsys, source())
    for fold, there in ((0, "more:fold 1"), (1, "more:fold 0")):
        its = learned(start("m", encoder(extra=["more"]), lmsys, artifacts, extra), fold, None, artifacts)
        assert its is not None and len(its.rows) == len(MORE) + 1 and there in set(its.rows["id"])


def test_answers_by_position_are_told(artifacts: Artifacts, lmsys: Competition) -> None:
    write_source(MORE.with_columns(label=pl.Series(np.arange(40) % 8 > 5).cast(pl.Int16)), lmsys)
    told = prepare_extra("more", source(), lmsys, ROWS, artifacts.folds()["fold"], TEST).told
    assert told["answers"]["counts"] == {lmsys.outputs[0]: 30, lmsys.outputs[1]: 10} and told["answers"]["p"] < 0.01
    assert sentence("more", told).endswith("10 (uneven: a model may learn the position)")
    write_source(MORE.with_columns(label=pl.Series(np.arange(40) % 2).cast(pl.Int16)), lmsys)
    told = prepare_extra("more", source(), lmsys, ROWS, artifacts.folds()["fold"], TEST).told
    assert "uneven" not in sentence("more", told)


@pytest.mark.parametrize(
    "kind",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("encoder", "swapped", "lightgbm")), "tabular"],
)
def test_every_kind_learns_them_and_is_scored_on_its_fold_alone(
    kind: str, artifacts: Artifacts, lmsys: Competition
) -> None:
    settings = {
        "encoder": encoder(FAST, extra=["more"]),
        "swapped": encoder(FAST | {"swap": True, "inner": 0.2}, input="joint", extra=["more"]),
        "tabular": replace(WORDS, extra=("more",)),
        "lightgbm": replace(WORDS, model="lightgbm", words=None, extra=("more",)),
    }[kind]
    write_source(MORE, lmsys)
    receipts = {}
    for name, weight in (("plain", None), ("mine", 1.0), ("twice", 2.0)):
        extra = prepared(artifacts, lmsys, source(weight=weight)) if weight else {}
        receipts[name] = trained(start(name, settings, lmsys, artifacts, extra), artifacts)
    assert receipts["mine"]["extra"] == {"more": {"rows": 40, "unsure": 0}} and "extra" not in receipts["plain"]
    answers = {name: oof(name, artifacts) for name in receipts}
    for each in answers.values():
        assert each["id"].equals(ROWS.head(24)["id"])
    tables = [each.drop("id").to_numpy() for each in answers.values()]
    assert all(np.isfinite(each).all() for each in tables)
    assert np.abs(tables[0] - tables[1]).max() > 1e-6 and np.abs(tables[1] - tables[2]).max() > 1e-6


@pytest.mark.slow
def test_soft_labels_of_certainty_are_given_ones(artifacts: Artifacts, lmsys: Competition) -> None:
    settings = encoder(FAST, extra=["more"])
    write_source(MORE, lmsys)
    trained(start("given", settings, lmsys, artifacts, prepared(artifacts, lmsys, source())), artifacts)
    one_hot = np.eye(3)[MORE["label"].to_numpy()]
    soft = MORE.drop("label").with_columns(pl.Series(name, one_hot[:, c]) for c, name in enumerate(lmsys.outputs))
    write_source(soft, lmsys)
    trained(start("soft", settings, lmsys, artifacts, prepared(artifacts, lmsys, source("soft"))), artifacts)
    given, soft_ones = (oof(name, artifacts).drop("id").to_numpy() for name in ("given", "soft"))
    np.testing.assert_allclose(given, soft_ones, atol=1e-5)


@pytest.mark.parametrize("model", ["logistic", "lightgbm"])
@pytest.mark.parametrize("name", ["classes", "binary", "ordered", "numbers", "choices", "labels"])
def test_weights_move_every_head_of_a_tabular_member_and_ones_none(name: str, model: str) -> None:
    competition = COMPETITIONS[name]
    rows, _ = labelled_rows(competition, 160, 3)
    labels, components = rows["label"].to_numpy(), 0 if model == "logistic" else 8
    settings = replace(WORDS, model=model, components=components)
    weights = np.where(np.arange(len(rows)) < len(rows) // 2, 1.0, 2.0)
    plain = fit_tabular(rows, labels, settings, competition, 1).predict(rows)
    even = fit_tabular(rows, labels, settings, competition, 1, np.ones(len(rows))).predict(rows)
    np.testing.assert_allclose(even, plain, atol=1e-4)
    assert np.abs(fit_tabular(rows, labels, settings, competition, 1, weights).predict(rows) - plain).max() > 1e-4


@pytest.mark.parametrize("name", ["classes", "binary", "numbers", "choices", "shares"])
def test_a_row_that_counts_twice_is_that_row_twice(name: str) -> None:
    family = COMPETITIONS["labels" if name == "shares" else name].family
    draw = np.random.default_rng(0)
    table = draw.normal(size=(3, 30, 4))  # of options each has its own rows
    if name == "choices":
        targets = np.eye(3)[draw.integers(3, size=30)].T
    else:
        table = table[:1]
        drawn = {"numbers": draw.normal(size=30), "shares": draw.random(30)}
        targets = drawn.get(name, draw.integers(max(2, family.outputs), size=30))[None]
    weights = 1.0 + (np.arange(30) % 2)
    order = np.repeat(np.arange(30), weights.astype(int))
    once = _fitted(table.reshape(-1, 4), targets.reshape(-1), family, 0.5, True, np.tile(weights, len(table)))
    twice = _fitted(table[:, order].reshape(-1, 4), targets[:, order].reshape(-1), family, 0.5, True, None)
    for one, other in zip(once, twice, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def taught(artifacts: Artifacts, competition: Competition, extra: Any, fold: int = 0) -> Start:
    """A student's lessons of a fold from a tabular teacher; the student's start."""
    settings = encoder(FAST, extra=["more"], teachers={"members": ["words"]})
    small = start("small", settings, competition, artifacts, extra)
    words = start("words", WORDS, competition, artifacts)
    trained(words, artifacts, fold)
    rows = split_rows(artifacts.train().collect(), artifacts.folds(), fold).train
    teach(small, words, fold, rows, artifacts)
    return small


def test_rows_without_labels_get_their_teachers_answers(artifacts: Artifacts, lmsys: Competition) -> None:
    write_source(MORE.drop("label"), lmsys)
    extra = prepared(artifacts, lmsys, source("none", weight=0.5))
    small = taught(artifacts, lmsys, extra)
    rows = split_rows(ROWS, artifacts.folds(), 0).train
    told, _ = lessons(small, 0, rows, artifacts)
    its = learned(small, 0, told, artifacts)
    assert told is not None and its is not None and len(its.rows) == 40 and set(its.weights) == {0.5}
    np.testing.assert_array_equal(its.statistic, told.means[len(rows) :])
    np.testing.assert_array_equal(its.labels, its.statistic.argmax(axis=1))
    gaps = np.sort(certainty(lmsys.family, its.statistic))
    threshold = float(gaps[9:11].mean())
    small = taught(artifacts, lmsys, prepared(artifacts, lmsys, source("none", confidence=threshold)))
    assert trained(small, artifacts)["extra"]["more"] == {"rows": 30, "unsure": 10}


def test_no_label_of_the_fold_reaches_a_pseudo_label(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for turn in (0, 1):
        (tmp_path / str(turn)).mkdir()
        monkeypatch.chdir(tmp_path / str(turn))
        labels = ROWS["label"].to_numpy()
        rows = ROWS.with_columns(label=pl.Series(np.where(FOLDS == 1, labels, (labels + turn) % 3), dtype=pl.Int16))
        here = Artifacts(ready(tmp_path / str(turn), rows, lmsys, FOLDS, backbones))
        write_source(MORE.drop("label"), lmsys)
        trained(taught(here, lmsys, prepared(here, lmsys, source("none"))), here)
        found.append(oof("small", here))
    assert found[0].equals(found[1])


@pytest.mark.slow
def test_a_refit_learns_them_too(artifacts: Artifacts, lmsys: Competition) -> None:
    write_source(MORE, lmsys)
    answers = []
    for weight in (1.0, 5.0):
        extra = prepared(artifacts, lmsys, source(weight=weight))
        assert refit(start("m", replace(WORDS, extra=("more",)), lmsys, artifacts, extra), True, artifacts)
        answers.append(pl.read_parquet(artifacts.refit_answers("m")).drop("id").to_numpy())
    assert np.abs(answers[0] - answers[1]).max() > 1e-6


def test_a_source_that_was_made_anew_is_refused_until_the_start_knows(artifacts: Artifacts, lmsys: Competition) -> None:
    write_source(MORE, lmsys)
    one = start("m", encoder(FAST, extra=["more"]), lmsys, artifacts, prepared(artifacts, lmsys, source()))
    write_source(MORE.head(30), lmsys)
    prepared(artifacts, lmsys, source())
    with pytest.raises(PodiumError, match=r"extra/more\.parquet: has changed since m's start file was written"):
        trained(one, artifacts)


@pytest.mark.parametrize("name", COMPETITIONS)
def test_the_nearest_label_to_an_answer_is_one_of_the_outcomes(name: str) -> None:
    competition = COMPETITIONS[name]
    rows, truth = labelled_rows(competition, 40, 2)
    family, labels = competition.family, rows["label"].to_numpy()
    nearest = likeliest(family, truth)
    assert nearest.shape == labels.shape
    assert np.isfinite(family.losses(nearest, truth)).all()
    if family.bounded:
        sure = certainty(family, truth)
        assert (sure >= 0).all() and (sure <= 1).all()


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({"task": "pair", "texts": {"a": "a", "b": "b"}, "classes": ["x", "y"]}, "task: expected preference"),
        ({"task": "text", "texts": {"text": "a"}, "classes": ["x", "y"]}, "task: expected preference, as in the scor"),
    ],
)
def test_another_form_is_one_line(
    says: Any, expected: str, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_source(MORE, lmsys, **says)
    with pytest.raises(PodiumError) as caught:
        check_form("more", source(), lmsys)
    assert str(caught.value).startswith("params.yaml: extra.more.competition: ") and expected in str(caught.value)


def test_every_row_near_the_holdout_is_one_line(artifacts: Artifacts, lmsys: Competition) -> None:
    write_source(ROWS.tail(12), lmsys)
    with pytest.raises(PodiumError, match=r"external/more/train\.csv: every row is nearly one of the holdout or the"):
        prepare_extra("more", source(), lmsys, ROWS, artifacts.folds()["fold"], TEST)
