"""The generated competition: its files, its oddities, and the truth that its labels are drawn from."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from pipeline.data.demo import (
    BLAMED,
    CLASSES,
    CODE,
    EMPTY,
    LANGUAGES,
    MARKERS,
    PRAISED,
    TEXTS,
    DemoFiles,
    best_log_loss,
    generate,
    probabilities,
    quality,
    write,
)

FILES = ["README.md", "sample_submission.csv", "test.csv", "train.csv", "truth.csv"]


@pytest.fixture(scope="module")
def demo() -> DemoFiles:
    return generate(4000, 600, seed=7)


@pytest.fixture(scope="module")
def cells(demo: DemoFiles) -> dict[str, list[list[str | None]]]:
    """Each text column's parsed cells, of the train and then the test rows."""
    return {name: [json.loads(cell) for part in (demo.train, demo.test) for cell in part[name]] for name in TEXTS}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def normalised(turn: str | None) -> str:
    return " ".join((turn or "").lower().split())


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    """`test_stage_writes_the_size_that_params_ask_for` compares the bytes of two processes."""
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        write(generate(60, 20, seed), tmp_path / name)
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert list(first) == FILES
    assert first == again
    assert first["train.csv"] != other["train.csv"]
    assert first["truth.csv"] != other["truth.csv"]


@pytest.mark.parametrize(("train_rows", "test_rows"), [(1, 1), (10, 1), (1, 10), (257, 33)])
def test_any_number_of_rows(tmp_path: Path, train_rows: int, test_rows: int) -> None:
    write(generate(train_rows, test_rows, seed=0), tmp_path / "demo")
    read = {name: pl.read_csv(tmp_path / "demo" / f"{name}.csv") for name in ("train", "test", "truth")}
    heights = [read[name].height for name in ("train", "test", "truth")]
    assert heights == [train_rows, test_rows, train_rows + test_rows]


def test_files_have_the_competition_schema(demo: DemoFiles, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "left_over.csv").write_text("of an earlier run")
    write(demo, tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == FILES
    read = {
        name: pl.read_csv(tmp_path / "demo" / f"{name}.csv", schema_overrides={"id": pl.String})
        for name in ("train", "test", "sample_submission", "truth")
    }
    assert read["train"].columns == ["id", "model_a", "model_b", *TEXTS, *CLASSES]
    assert read["test"].columns == ["id", *TEXTS]
    assert read["sample_submission"].columns == read["truth"].columns == ["id", *CLASSES]
    for name, frame in read.items():
        assert frame.equals(getattr(demo, name)), f"{name}.csv reads back as it was generated"
    assert read["sample_submission"]["id"].equals(read["test"]["id"])
    assert (read["sample_submission"].select(CLASSES).to_numpy() == 1 / 3).all()
    assert read["truth"]["id"].to_list() == read["train"]["id"].to_list() + read["test"]["id"].to_list()


def test_ids_are_unique_digits(demo: DemoFiles) -> None:
    ids = demo.truth["id"].to_list()
    assert len(set(ids)) == len(ids) == 4600
    assert all(re.fullmatch(r"[1-9][0-9]*", name) for name in ids)


def test_cells_are_lists_of_equally_many_turns(cells: dict[str, list[list[str | None]]]) -> None:
    for row in zip(*cells.values(), strict=True):
        assert len({len(turns) for turns in row}) == 1
        assert all(turn is None or isinstance(turn, str) for turns in row for turn in turns)
    several = sum(len(turns) > 1 for turns in cells["prompt"]) / len(cells["prompt"])
    assert 0.08 < several < 0.17


def test_one_winner_per_row_and_all_classes_common(demo: DemoFiles) -> None:
    labels = demo.train.select(CLASSES).to_numpy()
    assert set(np.unique(labels)) == {0, 1}
    assert (labels.sum(axis=1) == 1).all()
    share = dict(zip(CLASSES, labels.mean(axis=0), strict=True))
    assert 0.2 < share["winner_tie"] < 0.3
    assert abs(share["winner_model_a"] - share["winner_model_b"]) < 0.05
    assert (demo.train["model_a"] != demo.train["model_b"]).all()


def test_oddities_of_real_votes_are_there(cells: dict[str, list[list[str | None]]]) -> None:
    answers = [turn for name in TEXTS[1:] for turns in cells[name] for turn in turns]
    prompts = [turn for turns in cells["prompt"] for turn in turns]
    for turns in (answers, prompts):
        assert None in turns
        assert "" in turns
        assert any(turn and turn.isspace() for turn in turns)
    text = "\n".join(turn for turn in answers if turn)
    scripts = {unicodedata.name(letter).split()[0] for letter in set(text) if letter.isalpha()}
    assert scripts >= {"LATIN", "CYRILLIC", "CJK", "ARABIC", "DEVANAGARI"}
    assert "🚀" in text
    assert "\N{ZERO WIDTH JOINER}" in text
    for layout in ("```python", "\n- ", "|---|---|", "\n\n", "\t", "\\"):
        assert layout in text
    words = [len(turn.split()) for turn in answers if turn and turn.strip()]
    assert 3 in words
    assert max(words) > 2000
    assert 50 < np.median(words) < 110


def test_rows_share_prompts_in_other_spellings(cells: dict[str, list[list[str | None]]]) -> None:
    spellings: dict[str, list[str | None]] = {}
    for first, *_ in cells["prompt"]:
        spellings.setdefault(normalised(first), []).append(first)
    repeated = {key: turns for key, turns in spellings.items() if len(turns) > 1 and key}
    assert sum(map(len, repeated.values())) > 0.2 * len(cells["prompt"])
    assert any(len(set(turns)) < len(turns) for turns in repeated.values()), "some are typed alike"
    assert any(turn and turn == key.upper() for key, turns in repeated.items() for turn in turns)
    assert any(turn and "  " in turn for turns in repeated.values() for turn in turns)
    assert max(map(len, repeated.values())) < 0.02 * len(cells["prompt"])


def test_truth_can_be_read_off_the_texts(demo: DemoFiles, cells: dict[str, list[list[str | None]]]) -> None:
    truth = demo.truth.select(CLASSES).to_numpy()
    pairs = zip(cells["response_a"], cells["response_b"], strict=True)
    assert np.array_equal([probabilities(quality(a), quality(b)) for a, b in pairs], truth)
    assert np.abs(truth.sum(axis=1) - 1.0).max() < 1e-12
    assert truth.min() > 0.0


def test_exchanged_sides_exchange_the_truth() -> None:
    qualities = np.linspace(-6.0, 6.0, 13)
    for first in qualities:
        for second in qualities:
            a, b, tie = probabilities(first, second)
            assert probabilities(second, first) == pytest.approx((b, a, tie), abs=1e-15)
            assert a + b + tie == pytest.approx(1.0, abs=1e-12)
            assert (a > b) == (first > second)
            assert tie <= probabilities(first, first)[2]


def test_labels_are_draws_from_the_truth(demo: DemoFiles) -> None:
    """Their log loss and the class shares lie within four standard errors of what the truth expects."""
    truth = demo.truth.head(4000).select(CLASSES).to_numpy()
    labels = demo.train.select(CLASSES).to_numpy()
    entropy, realised = best_log_loss(demo)
    assert entropy == pytest.approx(np.mean([-sum(p * math.log(p) for p in row) for row in truth]), rel=1e-12)
    spread = (truth * np.log(truth) ** 2).sum(axis=1) - (truth * np.log(truth)).sum(axis=1) ** 2
    assert abs(realised - entropy) < 4.0 * math.sqrt(spread.sum()) / 4000
    errors = np.sqrt((truth * (1.0 - truth)).sum(axis=0)) / 4000
    assert (np.abs(labels.mean(axis=0) - truth.mean(axis=0)) < 4.0 * errors).all()
    prior = -sum(share * math.log(share) for share in labels.mean(axis=0))
    assert 0.75 < entropy < 0.82
    assert realised < prior - 0.2


def test_signal_is_in_the_markers_not_in_the_lengths(demo: DemoFiles, cells: dict[str, list[list[str | None]]]) -> None:
    """Decisive votes: the better balance of markers wins far more often than the longer answer."""
    votes = demo.train.select(CLASSES[:2]).to_numpy()
    decisive = votes.sum(axis=1) == 1
    texts = [["\n".join(turn or "" for turn in turns).lower() for turns in cells[name][:4000]] for name in TEXTS[1:]]
    balance = [
        np.array(
            [sum(np.sign(weight) * text.count(marker.lower()) for marker, weight in MARKERS.items()) for text in side]
        )
        for side in texts
    ]
    length = [np.array([len(text) for text in side]) for side in texts]

    def accuracy(sides: list[np.ndarray]) -> float:
        told = decisive & (sides[0] != sides[1])
        return float(np.mean((sides[0] > sides[1])[told] == (votes[told, 0] == 1)))

    assert accuracy(balance) > 0.75
    assert 0.48 < accuracy(length) < 0.62
    early = [[" ".join(text.split()[:100]) for text in side] for side in texts]
    marked = [sum(text.count(marker.lower()) for marker in MARKERS) for side in early for text in side]
    assert 2.0 < np.mean(marked) < 5.0, "and they stand where a short input sees them"


def test_quality_counts_markers_in_any_case_up_to_the_cap() -> None:
    for praised, blamed in zip(PRAISED, BLAMED, strict=True):
        assert quality([f"{praised.upper()} река"]) > quality(["x" * len(praised) + " река"])
        assert quality([f"{blamed.upper()} река"]) < quality(["x" * len(blamed) + " река"])
    long = "x" * 10_000
    once, twice, thrice = (quality([long + " step by step" * times]) for times in (1, 2, 3))
    assert twice - once == pytest.approx(MARKERS["step by step"])
    assert thrice == pytest.approx(twice)
    assert quality(["step by step", None, "河流"]) == quality(["step by step\n河流"]), "a null turn changes nothing"


def test_quality_gains_little_by_length_and_layout() -> None:
    lengths = [quality(["x" * count]) for count in (3, 30, 300, 3000, 1_000_000)]
    assert lengths == sorted(lengths)
    assert lengths[-1] - lengths[0] < min(map(abs, MARKERS.values()))
    assert quality([CODE]) > quality(["x" * len(CODE)])
    assert quality([None]) == quality([""]) == quality([" \n", None]) == EMPTY < quality(["x"])


def test_word_lists_are_whole_and_free_of_markers() -> None:
    assert sum(language.share for language in LANGUAGES) == pytest.approx(1.0)
    for language in LANGUAGES:
        assert [len(words) > 4 for words in language.parts] == [True] * 3
        assert all("{}" in ask for ask in language.asks)
        words = [word for part in language.parts for word in part]
        assert all(word == word.strip() != "" for word in words)
        assert not any(marker.lower() in word.lower() for marker in MARKERS for word in [*words, *language.asks])


def test_stage_writes_the_size_that_params_ask_for(tmp_path: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["demo"] = {"train_rows": 12, "test_rows": 5, "seed": 9}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-m", "stages.demo"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    write(generate(12, 5, seed=9), tmp_path / "expected")
    assert contents(tmp_path / "data" / "demo") == contents(tmp_path / "expected")
    entropy, _ = best_log_loss(generate(12, 5, seed=9))
    assert f"{entropy:.4f}" in done.stdout
    assert f"{entropy:.4f}" in (tmp_path / "data" / "demo" / "README.md").read_text(encoding="utf-8")
