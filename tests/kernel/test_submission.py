"""The submission file: a distribution in every row, the sample's shape, and a check that finds what is wrong."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.competitions.decision import PLAIN
from pipeline.competitions.submission import SMALLEST_PROBABILITY, as_submitted, submission_columns
from pipeline.competitions.task import Competition, Label
from pipeline.errors import PodiumError
from pipeline.kernel.submission import (
    SUM_TOLERANCE,
    SubmissionForm,
    read_form,
    validate_submission,
    write_submission,
)

ROWS = arrays.arrays(np.float64, st.tuples(st.integers(1, 8), st.just(3)), elements=st.floats(0, 1, width=64)).filter(
    lambda each: bool((each.sum(axis=1) > 0).all())
)
COLUMNS = ("id", "winner_model_a", "winner_model_b", "winner_tie")


def form_for(ids: list[str], columns: tuple[str, ...] = COLUMNS, cell: str = "0.25") -> SubmissionForm:
    place = columns.index("id")
    rows = tuple(tuple(id_ if at == place else cell for at in range(len(columns))) for id_ in ids)
    return SubmissionForm(columns, rows, place)


def write(path: Path, form: SubmissionForm, ids: list[str], means: np.ndarray, competition: Competition) -> None:
    write_submission(path, form, ids, means, PLAIN.apply(means, competition), competition)


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def sample_of(folder: Path, ids: list[str], columns: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "sample_submission.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *([id_ if name == "id" else "0.3" for name in columns] for id_ in ids)])
    return path


@given(ROWS)
def test_a_distribution_sums_to_one_and_rules_nothing_out(lmsys: Competition, probabilities: np.ndarray) -> None:
    result = as_submitted(probabilities, lmsys)
    assert np.abs(result.sum(axis=1) - 1).max() <= 1e-15 * 4
    assert result.min() >= SMALLEST_PROBABILITY / 4
    assert result.max() <= 1
    normal = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert np.abs(as_submitted(normal, lmsys) - normal).max() <= 4 * SMALLEST_PROBABILITY


@settings(max_examples=30)
@given(ROWS, st.randoms(use_true_random=False))
def test_what_is_written_is_valid_in_the_samples_order_and_loses_no_digit(
    tmp_path_factory: pytest.TempPathFactory, lmsys: Competition, probabilities: np.ndarray, random
) -> None:
    folder = tmp_path_factory.mktemp("submission")
    ids = [f'"{place}, é' for place in range(len(probabilities))]
    wanted, columns = ids.copy(), list(COLUMNS)
    random.shuffle(wanted)
    random.shuffle(columns)
    sample = sample_of(folder, wanted, tuple(columns))
    path = folder / "submission.csv"
    write(path, form_for(wanted, tuple(columns)), ids, probabilities, lmsys)
    assert validate_submission(path, sample, lmsys) == len(ids)
    expected = as_submitted(probabilities, lmsys)
    header, *lines = read(path)
    for line in lines:
        found = dict(zip(header, line, strict=True))
        numbers = [float(found[name]) for name in lmsys.outputs]
        assert numbers == expected[ids.index(found["id"])].tolist()  # equal to the last bit
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_ids_without_a_finite_row_keep_the_prior(tmp_path: Path, lmsys: Competition) -> None:
    form = form_for(["1", "2", "3"], cell="prior")
    rows = np.array([[0.1, 0.1, 0.8], [np.nan, 0.5, 0.5]])
    write(tmp_path / "submission.csv", form, ["3", "1"], rows, lmsys)
    _, first, second, third = read(tmp_path / "submission.csv")
    assert first[1:] == second[1:] == ["prior"] * 3
    assert [float(cell) for cell in third[1:]] == pytest.approx([0.1, 0.1, 0.8])


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        (["9007199254740993", "2"], ["9007199254740992", "02"]),  # one as floats
        (["12e456", "2"], ["34e567", "2.0"]),  # infinite as floats
        (["1_000", "2"], ["1000", " 2"]),
        (["infinity", "2"], ["inf", "2e0"]),
    ],
)
def test_an_id_is_never_taken_for_another_number(
    tmp_path: Path, lmsys: Competition, asked: list[str], known: list[str]
) -> None:
    rows = np.array([[0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
    write(tmp_path / "submission.csv", form_for(asked, cell="prior"), known, rows, lmsys)
    _, first, second = read(tmp_path / "submission.csv")
    assert first[1:] == ["prior"] * 3
    assert [float(cell) for cell in second[1:]] == pytest.approx([0.6, 0.2, 0.2])


def test_ids_of_an_older_encoding_are_found_and_written_as_they_came(tmp_path: Path, lmsys: Competition) -> None:
    form, rows = form_for(["caf\udce9"], cell="prior"), np.array([[0.1, 0.1, 0.8]])
    write(tmp_path / "submission.csv", form, ["café"], rows, replace(lmsys, encoding="latin-1"))
    assert b"\ncaf\xe9,0." in (tmp_path / "submission.csv").read_bytes()


def test_the_form_is_read_back_from_a_written_file(tmp_path: Path, lmsys: Competition) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    columns = ("winner_tie", "winner_model_b", "id", "winner_model_a")
    write(tmp_path / "s.csv", form_for(list("dbca"), columns), list("abcd"), probabilities, lmsys)
    form = read_form(tmp_path / "s.csv", lmsys)
    assert form.columns == columns
    assert form.ids == tuple("dbca")
    cells = np.array([[float(row[columns.index(name)]) for name in lmsys.outputs] for row in form.rows])
    assert np.array_equal(cells, as_submitted(probabilities, lmsys)[[3, 1, 2, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "expected the columns"),
        (lambda lines: [["id", "winner_model_a", "winner_tie", "winner_model_b"], *lines[1:]], "expected the columns"),
        (lambda lines: lines[:-1], "expected 3 rows, found 2"),
        (lambda lines: [*lines, lines[-1]], "expected 3 rows, found 4"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "line 2: expected id 1, found 2,"),
        (lambda lines: [*lines[:2], ["2", "0.5", "0.5"], lines[3]], "line 3: expected id 2, found 2,0.5,0.5"),
        (
            lambda lines: [*lines[:3], ["3", "1.2", "-0.1", "-0.1"]],
            r"line 4: column \w+: expected a probability",
        ),
        (
            lambda lines: [*lines[:3], ["3", "nan", "0.5", "0.5"]],
            r"line 4: column \w+: expected a probability",
        ),
        (lambda lines: [*lines[:3], ["3", "", "0.5", "0.5"]], r"line 4: column \w+: expected a probability"),
        (lambda lines: [*lines[:3], ["3", "0.3", "0.3", "0.39999"]], "line 4: expected a sum of 1"),
        (lambda lines: [], "expected a header, found an empty file"),
    ],
)
def test_the_check_names_what_is_wrong(tmp_path: Path, lmsys: Competition, change, message: str) -> None:
    sample = sample_of(tmp_path, ["1", "2", "3"])
    path = tmp_path / "submission.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(change([[*COLUMNS], *([str(i), "0.25", "0.25", "0.5"] for i in (1, 2, 3))]))
    with pytest.raises(PodiumError, match=message) as caught:
        validate_submission(path, sample, lmsys)
    assert "\n" not in str(caught.value)


def test_a_sum_may_be_off_by_the_tolerance_only(tmp_path: Path, lmsys: Competition) -> None:
    sample = sample_of(tmp_path, ["1"])
    path = tmp_path / "submission.csv"
    for off, valid in ((SUM_TOLERANCE / 2, True), (SUM_TOLERANCE * 2, False)):
        path.write_text(f"{','.join(COLUMNS)}\n1,0.25,0.25,{0.5 + off!r}\n")
        if valid:
            assert validate_submission(path, sample, lmsys) == 1
        else:
            with pytest.raises(PodiumError, match="expected a sum of 1"):
                validate_submission(path, sample, lmsys)


def test_a_missing_submission_is_one_line(tmp_path: Path, lmsys: Competition) -> None:
    with pytest.raises(PodiumError, match=r"nothing\.csv: expected a CSV file, found: No such file"):
        validate_submission(tmp_path / "nothing.csv", sample_of(tmp_path, ["1"]), lmsys)


TAGS = Competition(
    *("tags", "text", "samples_f1", "id", {"text": "text"}, Label(listed="tags", join=";")),
    outcome="labels",
    classes=("c#", "new york", "x"),
    answers={"tags": "labels"},
    join=";",
)


def test_labels_stand_beside_one_another(tmp_path: Path) -> None:
    form, sample = (
        form_for(["r0", "r1", "r2"], ("id", "tags"), "x"),
        sample_of(tmp_path, ["r0", "r1", "r2"], ("id", "tags")),
    )
    path = tmp_path / "submission.csv"
    write(path, form, ["r1", "r0", "r2"], np.array([[0.6, 0.1, 0.9], [0.2, 0.1, 0.3], [0.9, 0.5, 0.8]]), TAGS)
    assert read(path)[1:] == [["r0", ""], ["r1", "c#;x"], ["r2", "c#;new york;x"]]
    assert validate_submission(path, sample, TAGS) == 3
    for wrong in ("c#;c#", "c#;y", "c#; x"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([["id", "tags"], ["r0", ""], ["r1", wrong], ["r2", "x"]])
        with pytest.raises(PodiumError, match=r"line 3: column tags: expected different labels of the training rows"):
            validate_submission(path, sample, TAGS)


@pytest.mark.parametrize(
    ("outcome", "metric", "cells"),
    [
        ("labels", "micro_f1", [["r0", "1", "0"], ["r1", "0", "1"]]),
        ("labels", "mean_auc", [["r0", "0.9", "0.1"], ["r1", "0.2", "0.7"]]),
        ("numbers", "mcrmse", [["r0", "0.9", "0.1"], ["r1", "0.2", "0.7"]]),
    ],
)
def test_columns_without_answers_hold_what_the_metric_scores(
    outcome: str, metric: str, cells: list[list[str]], tmp_path: Path
) -> None:
    columns = ("label", "other label")  # of which the first has a name that the tables of predictions need
    scale = {"centre": (0.0, 0.0), "spread": (1.0, 1.0)} if outcome == "numbers" else {}
    competition = Competition(
        *("own", "text", metric, "id", {"text": "text"}, Label(columns=columns)), outcome=outcome, **scale
    )
    assert competition.outputs == ("label_", "other label")
    sample, path = sample_of(tmp_path, ["r0", "r1"], ("id", *columns)), tmp_path / "submission.csv"
    form = form_for(["r0", "r1"], ("id", *columns))
    write(path, form, ["r0", "r1"], np.array([[0.9, 0.1], [0.2, 0.7]]), competition)
    assert read(path)[1:] == cells
    assert validate_submission(path, sample, competition) == 2


def test_scores_without_answers_are_whole_where_the_metric_decides() -> None:
    score = Competition(
        *("scores", "text", "qwk", "id", {"text": "text"}, Label("score", low=1, high=3)), outcome="ordered"
    )
    assert submission_columns(score) == {"score": "label"}
    assert submission_columns(replace(score, metric="rmse")) == {"score": "mean"}
