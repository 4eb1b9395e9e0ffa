"""make new-competition: a YAML file that loads and runs prepare, guessed from the files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from competition_files import preference, prepared, twin, write, write_table
from support import ROOT, error_line, run_module

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import AUTO, Competition
from pipeline.errors import PodiumError
from pipeline.ingest.draft import write_draft

NAMES = sorted(file.stem for file in (ROOT / "pipeline" / "competitions").glob("*.yaml"))


def drafted(folder: Path, train: dict[str, list[str]], test: list[str], sample: dict[str, list[str]]) -> Competition:
    """The competition that is guessed from these columns, after `prepare` has taken it."""
    folder.mkdir(exist_ok=True)
    rows = len(next(iter(train.values())))
    write_table(folder / "train.csv", {"id": [f"r{row}" for row in range(rows)]} | train)
    write_table(folder / "test.csv", {"id": [f"t{row}" for row in range(rows)]} | {name: train[name] for name in test})
    asked = {name: (cells * rows)[:rows] for name, cells in sample.items()}
    write_table(folder / "sample_submission.csv", {"id": [f"t{row}" for row in range(rows)]} | asked)
    competition = load_competition(str(write_draft(folder)))
    prepared(folder, competition)
    return competition


@pytest.mark.parametrize("name", NAMES)
def test_a_draft_is_prepared_and_has_the_shape_of_the_shipped_file(name: str, tmp_path: Path) -> None:
    shipped = load_competition(name)
    source = twin(tmp_path / "data", shipped, rows=120)
    found = load_competition(str(write_draft(source)))
    prepared(source, found)
    same = ("id", "turns", "separator", "train", "test", "sample_submission")
    assert [getattr(found, key) for key in same] == [getattr(shipped, key) for key in same]
    assert found.task == (shipped.task if name != "us-patent" else "text")  # its two sides do not look like sides
    assert set(found.texts.values()) == set(shipped.texts.values())
    if name not in ("sst", "quora", "google-quest"):  # numbers 0 to 4, 0 and 1: taken for scores and a label
        assert found.outcome == shipped.outcome
        assert found.label.column == shipped.label.column
        assert found.label.columns == shipped.label.columns
        assert (found.classes, found.options) == (shipped.classes, shipped.options)


TEXTS = [f"{word} {place} words that differ from row to row" for place, word in enumerate(["one", "two", "three"] * 8)]


@pytest.mark.parametrize(
    ("answers", "sample", "expected"),
    [
        ({"y": ["0", "1"]}, {"y": ["0.5"]}, ("labels", "roc_auc", {})),
        ({"y": ["0", "1"]}, {"y": ["0"]}, ("labels", "f1", {"y": "label"})),
        ({"y": ["True", "False"]}, {"p": ["0.5"]}, ("labels", "roc_auc", {"p": "mean"})),
        ({"label": ["0", "1"]}, {"label": ["0.5"]}, ("classes", "roc_auc", {"label": "1"})),
        ({"y": ["0.5", "7", "-1e3"]}, {"y": ["0"]}, ("numbers", "rmse", {})),
        ({"y": ["1", "2", "3"]}, {"score": ["2"]}, ("ordered", "qwk", {"score": "label"})),
        ({"y": ["cat", "dog"]}, {"y": ["cat"]}, ("classes", "accuracy", {"y": "label"})),
        ({"y": ["cat", "dog"]}, {"best": ["dog cat"]}, ("classes", "map@2", {"best": "top 2"})),
        ({"y": ["cat", "dog"]}, {"cat": ["0.5"], "dog": ["0.5"]}, ("classes", "log_loss", {})),
        ({"y": ["1", "2"]}, {"p_1": ["0.5"], "p_2": ["0.5"]}, ("classes", "log_loss", {})),
        ({"p": ["1", "0"], "q": ["0", "1"]}, {"p": ["0.5"], "q": ["0.5"]}, ("classes", "log_loss", {})),
        ({"p": ["1", "0"], "q": ["0", "0"]}, {"p": ["0.5"], "q": ["0.5"]}, ("labels", "mean_auc", {})),
        ({"p": ["0.3", "0"], "q": ["0", ""]}, {"p": ["0.5"], "q": ["0.5"]}, ("labels", "log_loss", {})),
        ({"p": ["3", "0"], "q": ["0", "5"]}, {"p": ["0.5"], "q": ["0.5"]}, ("numbers", "mcrmse", {})),
        ({"y": [f"kind {n}" for n in range(40)]}, {"y": ["kind 1"]}, ("classes", "accuracy", {"y": "label"})),
    ],
)
def test_the_outcome_is_guessed(
    answers: dict[str, list[str]], sample: dict[str, list[str]], expected: tuple, tmp_path: Path
) -> None:
    rows = max(24, *map(len, answers.values()))
    train = {"body": (TEXTS * 2)[:rows]} | {name: (cells * rows)[:rows] for name, cells in answers.items()}
    found = drafted(tmp_path, train, ["body"], sample)
    assert (found.outcome, found.metric, found.answers) == expected
    assert (found.classes == AUTO) == (len(answers.get("y", [])) > 30)


def test_what_parts_the_rows_is_a_comment(tmp_path: Path) -> None:
    days = [f"2024-01-{1 + place:02d}" for place in range(24)]
    train = {"body": TEXTS, "url": ["a", "b"] * 12, "day": days, "y": ["1", "0"] * 12}
    found = drafted(tmp_path, train, ["body"], {"y": ["0.5"]})
    text = (tmp_path / "competition.yaml").read_text(encoding="utf-8")
    assert "# group: [...]   # rows that must not be parted; values repeat in url (2 values) of 24 rows" in text
    assert "# time: day" in text
    assert found.ignored == ("url", "day")
    assert (found.group, found.time) == ((), None)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="no such folder"):
        write_draft(tmp_path / "nowhere")
    with pytest.raises(PodiumError, match=r"expected a table with sample and submission in its name .* found nothing"):
        write_draft(tmp_path)
    source = preference(tmp_path / "data")
    (source / "train.csv").rename(source / "train.csv.zip")
    with pytest.raises(PodiumError, match=r"with train in its name .*; unpack train.csv.zip"):
        write_draft(source)
    (source / "train.csv.zip").unlink()
    (source / "train.csv").write_bytes((source / "test.csv").read_bytes())
    with pytest.raises(PodiumError, match=r"train.csv: expected a column that test.csv lacks: the answer"):
        write_draft(source)


def drawn_up(folder: Path, train: list, test: list, sample: list) -> str:
    """The line that a draft of these files is refused with."""
    for name, rows in (("train.csv", train), ("test.csv", test), ("sample_submission.csv", sample)):
        write(folder / name, rows)
    with pytest.raises(PodiumError) as caught:
        write_draft(folder)
    return str(caught.value)


def test_files_of_which_nothing_can_be_guessed_are_one_line(tmp_path: Path) -> None:
    text = [["id", "text"], ["1", "some words"]]
    assert "sample_submission.csv: expected a column beside the id" in drawn_up(
        tmp_path, [["id", "text", "label"], ["1", "words", "x"]], text, [["id"], ["1"]]
    )
    assert "test.csv: expected an id column" in drawn_up(
        tmp_path, [["q", ""], ["1", "2"]], [[""], ["1"]], [["q"], ["1"]]
    )


def test_the_command_prints_the_file_and_keeps_an_edited_one(tmp_path: Path) -> None:
    source = preference(tmp_path / "data")
    done = run_module("stages.new_competition", str(source), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    target = source / "competition.yaml"
    assert done.stdout.startswith(target.read_text(encoding="utf-8"))
    assert done.stdout.rstrip().endswith(f"`make repro PRESET=cpu DATA={source}` uses it (PRESET=short for sentences)")
    target.write_text("mine")
    assert "is there already" in error_line(run_module("stages.new_competition", str(source), cwd=tmp_path))
    assert target.read_text() == "mine"
