"""Rows that a model has written: what is kept of them, and that an answer must not show in the form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from support import preference_rows

from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.errors import PodiumError
from pipeline.members.beside.extra import prepare_extra, sentence
from pipeline.members.beside.made import form_gain
from pipeline.models.tabular.model import fit_tabular
from pipeline.settings.extra import ExtraRows
from pipeline.validation import validated

ROWS = preference_rows(120, seed=4)
FOLDS = pl.Series(np.arange(120) % 4 - 1)
TEST = preference_rows(8, seed=11).with_columns(prompt=pl.concat_list(pl.format("Hidden {}?", pl.int_range(8))))
SOURCE = ExtraRows(path="external/made", competition="external/made/competition.yaml", made=True)


def rows_of(count: int, longer: float, seed: int = 9) -> pl.DataFrame:
    """Preferences of which in so many the longer side has won, where one has; other prompts than the training rows'."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, count)
    shows = draw.random(count) < longer
    sides = {}
    for side, name in enumerate(("a", "b")):
        long = np.where(shows, labels == side, draw.random(count) < 0.5)
        sides[name] = [f"answer {name} {n} " + "and more of it " * (6 * each + 1) for n, each in enumerate(long)]
    prompts = [f"Made question {n} about {draw.integers(1_000_000)}?" for n in range(count)]
    return pl.DataFrame({"id": [f"m{n}" for n in range(count)], "prompt": prompts, **sides, "label": labels})


def write(rows: pl.DataFrame, competition: Competition, **columns: Any) -> None:
    folder = Path("external/made")
    folder.mkdir(parents=True, exist_ok=True)
    says = {"name": "made", "task": "preference", "metric": "log_loss", "id": "id", "label": {"column": "label"}}
    says |= {"texts": {"prompt": "prompt", "a": "a", "b": "b"}, "classes": list(competition.outputs)}
    (folder / "competition.yaml").write_text(yaml.safe_dump(says))
    named = pl.Series("label", [competition.outputs[each] for each in rows["label"]])
    marked = {"generator": "some-model", "verdict": "keep"} | columns
    written = rows.with_columns(named)
    for name, value in marked.items():
        if value is not None:
            values = [value] * len(rows) if isinstance(value, str) else value
            written = written.with_columns(pl.Series(name, values))
    written.write_csv(folder / "train.csv")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(competition: Competition) -> Any:
    return prepare_extra("quiz", SOURCE, competition, ROWS, FOLDS, TEST)


def test_what_the_judge_drops_goes_and_what_repeats_another_row(lmsys: Competition) -> None:
    rows = rows_of(80, 0.0)
    again = rows.head(3).with_columns(id=pl.Series(["x", "y", "z"]), a=pl.col("a").str.to_uppercase())
    verdicts = ["drop"] * 5 + ["keep"] * 78
    write(pl.concat([rows, again]), lmsys, verdict=verdicts, generator=["one"] * 40 + ["two"] * 43)
    found = made(lmsys)
    # The three repeat rows that the judge has dropped; so they are the only ones of their kind.
    assert found.told["made"]["by"] == {"two": 43, "one": 35}
    assert found.told["made"]["refused"] == 5 and found.told["made"]["repeated"] == 0
    write(pl.concat([rows, again]), lmsys)
    found = made(lmsys)
    assert found.told["made"]["repeated"] == 3 and not {"quiz:x", "quiz:y", "quiz:z"} & set(found.rows["id"])
    assert "made by some-model 80, 0 refused by the judge, 3 repeated; lengths and positions alone" in sentence(
        "quiz", found.told
    )


def test_an_answer_that_shows_in_the_form_is_refused(lmsys: Competition) -> None:
    write(rows_of(300, 0.7), lmsys)
    with pytest.raises(PodiumError, match=r"the answer shows in the form: a probe of lengths and positions gains 0\."):
        made(lmsys)


def test_a_probe_of_lengths_gains_nothing_where_they_say_nothing(lmsys: Competition) -> None:
    found = []
    for seed in range(5):
        rows = rows_of(300, 0.0, seed).with_columns(pl.concat_list(name) for name in ("prompt", "a", "b"))
        found.append(form_gain(rows, lmsys).mean)
    assert max(found) < 0.01
    rows = rows_of(300, 1.0).with_columns(pl.concat_list(name) for name in ("prompt", "a", "b"))
    assert form_gain(rows, lmsys).mean > 0.5


def test_a_row_stays_away_from_the_fold_of_its_examples_and_one_from_the_holdout_goes(lmsys: Competition) -> None:
    fold_of = dict(zip(ROWS["id"], FOLDS, strict=True))
    examples = [json.dumps([row]) for row in ROWS["id"].head(78)]
    examples += ["", json.dumps(ROWS["id"].gather([1, 2, 5]).to_list())]
    write(rows_of(80, 0.0), lmsys, examples=examples)
    found = made(lmsys)
    wanted = {f"quiz:m{n}": [] if n == 78 else [0, 1] if n == 79 else [fold_of[ROWS["id"][n]]] for n in range(80)}
    assert dict(found.rows.select("id", "apart").iter_rows()) == {k: v for k, v in wanted.items() if v != [-1]}
    assert found.told["dropped"] == {"holdout": 20, "test": 0} and found.told["apart"] == {"0": 21, "1": 20, "2": 19}
    assert "near duplicates, or written from its rows: 20 of the holdout and 0 of the test" in sentence(
        "quiz", found.told
    )


@pytest.mark.parametrize("told", [True, False])
def test_rows_written_from_a_fold_bring_its_labels_unless_they_say_so(told: bool, lmsys: Competition) -> None:
    """Labels of pure noise, and made rows that keep a rare word of their example with its label."""
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 2, len(ROWS))
    rare = pl.Series([f"rare{draw.integers(10**9)}" for _ in range(len(ROWS))])
    train = ROWS.with_columns(label=pl.Series(labels, dtype=pl.Int16), a=pl.concat_list(rare))
    rows = rows_of(len(ROWS), 0.0).with_columns(label=pl.Series(labels), a=rare + " of the made row")
    write(rows, lmsys, examples=[json.dumps([each]) for each in ROWS["id"]] if told else None)
    found = prepare_extra("quiz", SOURCE, lmsys, train, FOLDS, TEST).rows
    asked = train.filter(FOLDS == 0)
    learned = pl.concat(
        [train.filter(FOLDS > 0), found.filter(~pl.col("apart").list.contains(0)).select(train.columns)]
    )
    words = {"longest": 1, "max_features": 5000, "min_df": 1}
    settings = member_settings(
        {
            "kind": "tabular",
            "backbone": "none",
            "model": "logistic",
            "features": False,
            "words": words,
            "logistic": {"c": 30.0},
        }
    )
    model = fit_tabular(learned, learned["label"].to_numpy(), settings, lmsys, 1)
    right = float((model.predict(asked)[:, :2].argmax(axis=1) == asked["label"].to_numpy()).mean())
    assert abs(right - 0.5) < 2 * 0.5 / len(asked) ** 0.5 if told else right > 0.75


def test_lines_for_what_is_missing_or_wrong(lmsys: Competition) -> None:
    write(rows_of(60, 0.0), lmsys, generator=None)
    with pytest.raises(PodiumError, match="expected a column generator, as made rows have, found id, prompt"):
        made(lmsys)
    write(rows_of(60, 0.0), lmsys, verdict=["keep"] * 59 + ["good"])
    with pytest.raises(PodiumError, match='verdict of row m59: expected keep or drop, found "good"'):
        made(lmsys)
    write(rows_of(60, 0.0), lmsys, verdict="drop")
    with pytest.raises(PodiumError, match="verdict: the judge drops all 60 rows; look at some, and take another judge"):
        made(lmsys)
    for cell, expected in {
        "1000, 1001": 'examples of row m0: expected a JSON list of ids, such as ["17", "23"], found "1000, 1001"',
        "[1000]": "expected a JSON list of ids",
        '["nobody"]': 'examples of row m0: expected ids of training rows, found "nobody", which is none',
    }.items():
        write(rows_of(60, 0.0), lmsys, examples=[cell] * 60)
        with pytest.raises(PodiumError, match=re.escape(expected)):
            made(lmsys)
    write(rows_of(60, 0.0), lmsys, examples=[json.dumps([ROWS["id"][0]])] * 60)
    with pytest.raises(
        PodiumError, match="every row is nearly one of the holdout or the test file, or written from the h"
    ):
        made(lmsys)
    with pytest.raises(PodiumError, match="made rows have answers of their own: labels is given, found soft"):
        validated(ExtraRows, {"path": "external/x", "competition": "lmsys", "made": True, "labels": "soft"}, "extra")
