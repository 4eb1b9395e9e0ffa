from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from support import SHARED, preference_rows
from tabular_models import BOTH, MODELS, fitted

from pipeline.competitions.metrics import METRICS
from pipeline.competitions.task import Competition
from pipeline.data.rows import swapped
from pipeline.errors import PodiumError
from pipeline.models.tabular.model import fit_tabular, load_tabular
from pipeline.models.tabular.tfidf import WORDS, fit_tfidf
from pipeline.settings.tabular import Tabular
from pipeline.validation import validated


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    return preference_rows(400, seed=2)


def sentences(count: int, seed: int, classes: tuple[int, ...] = (0, 1, 2)) -> pl.DataFrame:
    """Single texts whose class shows in one of their words."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=count)
    mark = np.array(["raven", "tentacle", "monster"])[labels]
    noise = np.array(["the", "of", "a", "dark", "night", "and", "then", "she", "he", "saw"])
    text = [[" ".join([*rng.choice(noise, 8), word if rng.random() < 0.8 else "thing"])] for word in mark]
    return pl.DataFrame({"id": [str(i) for i in range(count)], "label": pl.Series(labels, dtype=pl.Int8), "text": text})


@pytest.mark.parametrize("name", MODELS)
def test_mirrored_rows_get_exactly_the_mirrored_answer(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    model = fitted(name, rows[:300], lmsys)
    straight, other = model.predict(rows[300:]), model.predict(swapped(rows[300:], lmsys.kind))
    assert np.abs(lmsys.mirrored(other) - straight).max() < 1e-12
    assert np.abs(straight.sum(axis=1) - 1).max() < 1e-12
    assert (straight > 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_reloaded_model_answers_the_same_and_a_second_fit_writes_the_same_bytes(
    name: str, rows: pl.DataFrame, lmsys: Competition, tmp_path: Path
) -> None:
    model = fitted(name, rows[:300], lmsys)
    model.save(tmp_path / "one")
    fitted(name, rows[:300], lmsys).save(tmp_path / "two")
    assert np.array_equal(load_tabular(tmp_path / "one", lmsys).predict(rows[300:]), model.predict(rows[300:]))
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert not [file for file in files if file.endswith((".pkl", ".joblib"))]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("n-grams", "everything"))])
def test_it_learns_what_stands_in_the_text(name: str, rows: pl.DataFrame, lmsys: Competition) -> None:
    train, fresh = rows, preference_rows(400, seed=3)
    labels = fresh["label"].to_numpy()
    prior = np.tile(np.bincount(train["label"]) / len(train), (len(fresh), 1))
    log_loss = METRICS["log_loss"]
    assert log_loss.score(labels, fitted(name, train, lmsys).predict(fresh)) < log_loss.score(labels, prior) - 0.1


def test_nothing_is_learned_from_rows_outside_the_fold(rows: pl.DataFrame, lmsys: Competition) -> None:
    """Same training rows, same bytes; a word that only other rows hold is in no vocabulary."""
    stranger = rows[:1].with_columns(a=pl.lit("zyxwvut " * 9).str.split("|"))
    model = fitted("n-grams, logistic", rows[:300], lmsys)
    assert "zyxwvut" not in model.vocabularies["words"].ngrams
    assert np.isfinite(model.predict(stranger)).all()
    together = model.predict(pl.concat([rows[300:], stranger]))
    assert np.array_equal(together[:-1], model.predict(rows[300:]))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("present", [(0, 1), (0, 2), (2,)])
def test_a_class_that_never_occurs_keeps_its_column(
    name: str, present: tuple[int, ...], rows: pl.DataFrame, lmsys: Competition, spooky: Competition
) -> None:
    for competition, table in ((lmsys, rows), (spooky, sentences(300, 0))):
        seen = table.filter(pl.col("label").is_in(present))
        answer = fitted(name, seen, competition).predict(table)
        assert answer.shape == (len(table), 3)
        assert np.isfinite(answer).all()
        assert (answer > 0).all()
        # Where rows have two sides, the model learns both orders: a class is seen where its mirror image is.
        images = competition.kind.mirror or range(3)
        absent = [c for c in range(3) if c not in present and images[c] not in present]
        assert (answer[:, absent] < 1e-3).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_single_text_with_several_classes(name: str, spooky: Competition, tmp_path: Path) -> None:
    train, fresh = sentences(300, 0), sentences(200, 1)
    model = fitted(name, train, spooky)
    model.save(tmp_path)
    answer = load_tabular(tmp_path, spooky).predict(fresh)
    assert np.array_equal(answer, model.predict(fresh))
    if "features" not in name:
        prior = np.tile(np.bincount(train["label"]) / len(train), (len(fresh), 1))
        log_loss, labels = METRICS["log_loss"], fresh["label"].to_numpy()
        assert log_loss.score(labels, answer) < log_loss.score(labels, prior) - 0.02


def test_a_share_of_few_rows_is_one_row_at_least(spooky: Competition) -> None:
    few = validated(
        Tabular,
        {"kind": "tabular", "backbone": "none", "model": "lightgbm", "boosting": {"row_share": 0.01, "max_trees": 8}},
        "few",
    )
    rows = sentences(30, 5)
    answers = fit_tabular(rows, rows["label"].to_numpy(), few, spooky, 1).predict(rows)
    assert np.abs(answers.sum(axis=1) - 1).max() < 1e-12


def test_texts_of_any_kind_are_answered(rows: pl.DataFrame, lmsys: Competition) -> None:
    odd = [[None], [""], [" \n\t"], [], ["й" * 1_000_000], ["你好 😀"]]
    schema = {"prompt": pl.List(pl.String), "a": pl.List(pl.String), "b": pl.List(pl.String)}
    strange = pl.DataFrame({"prompt": odd, "a": odd, "b": odd[::-1]}, schema=schema)
    for name in BOTH:
        answer = fitted(name, rows[:300], lmsys).predict(strange)
        assert np.isfinite(answer).all()


def test_the_weights_are_scikit_learns_after_a_trip_through_plain_arrays(rows: pl.DataFrame) -> None:
    texts = rows["a"].list.join(" ")
    reference = TfidfVectorizer(token_pattern=WORDS, ngram_range=(1, 2), sublinear_tf=True, max_features=50, min_df=2)
    expected = reference.fit_transform(texts[:300])
    kept = fit_tfidf(texts[:300], "words", 2, 50, 2)
    assert kept.ngrams == reference.get_feature_names_out().tolist()
    assert abs(kept.transform(texts[:300]) - expected).max() < 1e-12
    assert abs(kept.transform(texts[300:]) - reference.transform(texts[300:])).max() < 1e-12


def test_scripts_without_spaces_are_cut_into_signs() -> None:
    kept = fit_tfidf(pl.Series(["你好吗", "don't 好!", "สวัสดี"]), "words", 1, 100, 1)
    assert {"你", "好", "吗", "don't", "!", "ส"} <= set(kept.ngrams)


def test_texts_without_an_n_gram_to_keep_give_an_empty_vocabulary() -> None:
    kept = fit_tfidf(pl.Series(["", " "]), "words", 2, 10, 1)
    assert kept.ngrams == []
    assert kept.transform(pl.Series(["some words"])).shape == (1, 0)


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ("member.json", "fold model"),
        ("weights.safetensors", "tabular member"),
        ("vocabulary.json", "tabular member"),
    ],
)
def test_a_broken_folder_is_named(
    broken: str, what: str, rows: pl.DataFrame, lmsys: Competition, tmp_path: Path
) -> None:
    fitted("n-grams, logistic", rows[:200], lmsys).save(tmp_path)
    (tmp_path / broken).write_text("{")
    with pytest.raises(PodiumError, match=f"{broken}: expected a whole file of a {what}"):
        load_tabular(tmp_path, lmsys)


def test_a_model_of_other_classes_is_refused(
    rows: pl.DataFrame, lmsys: Competition, spooky: Competition, tmp_path: Path
) -> None:
    fitted("n-grams, logistic", rows[:200], lmsys).save(tmp_path)
    with pytest.raises(PodiumError, match="classes: expected"):
        load_tabular(tmp_path, spooky)


def test_real_sentences_are_told_apart(spooky: Competition) -> None:
    file = SHARED / "cs224n" / "ids-sst-train.csv"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    raw = pl.read_csv(file, separator="\t", quote_char=None).filter(pl.col("sentiment").is_in([0, 2, 4]))
    rows = raw.select(
        pl.col("id").cast(pl.String),
        (pl.col("sentiment") // 2).cast(pl.Int8).alias("label"),
        pl.concat_list(pl.col("sentence")).alias("text"),
    )
    train, fresh = rows[:2500], rows[2500:3500]
    answer = fitted("n-grams, logistic", train, spooky).predict(fresh)
    prior = np.tile(np.bincount(train["label"]) / len(train), (len(fresh), 1))
    log_loss, labels = METRICS["log_loss"], fresh["label"].to_numpy()
    assert log_loss.score(labels, answer) < log_loss.score(labels, prior) - 0.05
