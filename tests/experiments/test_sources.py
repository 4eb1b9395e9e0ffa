"""What each source brings: differences of real trainings, row by row, never trained twice, shown as measured."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from networks import ready
from report_run import Page, edit, make_run, rendered
from support import ROOT, preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.data.split import split_rows
from pipeline.errors import PodiumError
from pipeline.experiments import sources
from pipeline.experiments.sources import Measured, folds_of, measure
from pipeline.files import write_json, write_parquet
from pipeline.imports import fingerprint
from pipeline.members.beside.teach import teach
from pipeline.members.context import read_start
from pipeline.members.fold import train_fold
from pipeline.members.start import resolve
from pipeline.report.sources import ALL, SOURCES, brought, read_measured
from pipeline.repro import say_sources
from pipeline.validation import validated

COUNT, FOLDS = 60, np.repeat([0, 1, -1], [24, 24, 12])
ROWS = preference_rows(COUNT, seed=4)
WORDS = {"kind": "tabular", "backbone": "none", "model": "logistic", "words": {"longest": 1, "max_features": 500}}
NETWORK = {
    "max_tokens": 64,
    "training": {"schedule": {"rate": 1e-3}, "batches": {"rows_per_step": 8, "tokens_per_batch": 1024}},
}
MEMBERS: dict[str, Any] = {
    "words": WORDS | {"extra": ["votes", "noise"]},
    "alone": WORDS | {"extra": ["votes"], "folds": [1]},
    "plain": WORDS,
    "siamese": NETWORK | {"kind": "encoder", "backbone": "bert", "head": "equivariant", "extra": ["votes"]},
    "judge": NETWORK | {"kind": "decoder", "backbone": "llama", "inference": {"precision": "nf4"}, "extra": ["votes"]},
}
STUDENT = NETWORK | {"kind": "encoder", "backbone": "bert", "extra": ["chats"], "teachers": {"members": ["plain"]}}


FINGERPRINT = cache(fingerprint)
"""Half a second each, and the code stays as it is."""


@pytest.fixture(scope="module")
def params() -> Params:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    source = {"path": "external/x", "competition": "lmsys"}
    value |= {"members": MEMBERS, "students": {"small": STUDENT}, "guard": {"max_attempts": 0}, "threads": 1}
    value["extra"] = {"votes": source, "noise": source, "chats": source | {"labels": "none"}}
    value["folds"] |= {"ids": [0, 1]}
    return validated(Params, value, "params.yaml")


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """A run with its sources prepared: `votes` like the rows, `noise` with labels that mean nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.members.start.fingerprint", FINGERPRINT)
    found = Artifacts(ready(tmp_path, ROWS, lmsys, FOLDS, backbones))
    for seed, name in enumerate(("votes", "noise", "chats"), start=9):
        rows = preference_rows(80, seed=seed).with_columns(
            id=pl.format(name + ":{}", pl.int_range(80)), apart=pl.lit([], dtype=pl.List(pl.Int8))
        )
        if name == "noise":
            rows = rows.with_columns(label=pl.Series(np.random.default_rng(0).integers(0, 3, 80), dtype=pl.Int16))
        write_parquet(rows.drop("label") if name == "chats" else rows, found.extra(name))
    return found


def built(name: str, fold: int, params: Params, artifacts: Artifacts) -> None:
    """The fold model as `dvc repro` makes it."""
    write_json(artifacts.start(name), resolve(name, params, artifacts.competition(), artifacts))
    start = read_start(artifacts.start(name))
    train_fold(split_rows(artifacts.train().collect(), artifacts.folds(), fold), start, fold, artifacts)


def trained(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removesuffix(": trains") for line in capsys.readouterr().out.splitlines() if line.endswith(": trains")]


def test_a_gain_is_the_difference_of_the_fold_models_that_a_build_makes(params: Params, artifacts: Artifacts) -> None:
    found = measure("words", [0], params, artifacts)
    assert list(found.gains) == ["votes", "noise", ALL] and (found.folds, found.rows) == ((0,), 24)
    labels = ROWS["label"].to_numpy()[:24]
    losses = {}
    for left in (("votes", "noise"), ("noise",), ("votes",), ()):
        settings = replace(params.members["words"], extra=left)
        changed = replace(params, members=params.members | {"words": settings})
        built("words", 0, changed, artifacts)
        said = pl.read_parquet(artifacts.oof_part("words", 0))
        family = artifacts.competition().family
        losses[left] = family.losses(labels, said.select(artifacts.competition().outputs).to_numpy()).mean()
    for name, left in (("votes", ("noise",)), ("noise", ("votes",)), (ALL, ())):
        gain = found.gains[name]
        assert gain.mean == pytest.approx(losses[left] - losses["votes", "noise"], abs=1e-9)
        assert gain.low < gain.mean < gain.high
    assert found.gains["votes"].mean > max(found.gains["noise"].mean, 0)


def test_nothing_is_trained_that_is_known(
    params: Params, artifacts: Artifacts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure("words", [0], params, artifacts)
    assert trained(capsys) == [
        f"words fold 0 {x}" for x in ("with all", "without votes", "without noise", "without votes, noise")
    ]
    assert measure("words", [0], params, artifacts) == first and trained(capsys) == []
    both = measure("words", [0, 1], params, artifacts)
    assert all(line.startswith("words fold 1") for line in trained(capsys)) and (both.folds, both.rows) == ((0, 1), 48)
    second = measure("words", [1], params, artifacts)
    for name, gain in both.gains.items():  # of folds of one size
        assert gain.mean == pytest.approx((first.gains[name].mean + second.gains[name].mean) / 2)
    heavier = replace(params, extra=params.extra | {"votes": replace(params.extra["votes"], weight=2.0)})
    assert measure("words", [0], heavier, artifacts) != first and len(trained(capsys)) == 4
    done = len(list(Path("work/sources/words").iterdir()))
    look, left = sources.quick_look, [2]

    def dies(*given: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return look(*given)

    monkeypatch.setattr(sources, "quick_look", dies)
    other = replace(params, extra=params.extra | {"votes": replace(params.extra["votes"], weight=3.0)})
    with pytest.raises(KeyboardInterrupt):
        measure("words", [0], other, artifacts)
    assert len(list(Path("work/sources/words").iterdir())) == done + 2
    monkeypatch.setattr(sources, "quick_look", look)
    trained(capsys)
    measure("words", [0], other, artifacts)
    assert trained(capsys) == ["words fold 0 without noise", "words fold 0 without votes, noise"]


@pytest.mark.parametrize(
    "name", ["words", *(pytest.param(name, marks=pytest.mark.slow) for name in ("siamese", "judge"))]
)
def test_what_the_build_has_made_is_taken_and_is_the_same(
    name: str, params: Params, artifacts: Artifacts, capsys: pytest.CaptureFixture[str]
) -> None:
    anew = measure(name, [0], params, artifacts)
    built(name, 0, params, artifacts)
    for file in Path("work/sources", name).iterdir():
        file.unlink()
    trained(capsys)
    assert measure(name, [0], params, artifacts) == anew
    assert f"{name} fold 0 without votes" in (lines := trained(capsys)) and f"{name} fold 0 with all" not in lines
    edit(artifacts.root, f"receipts/{name}-fold0.json", lambda receipt: receipt.update(start="another"))
    measure(name, [0], params, artifacts)
    assert trained(capsys) == [f"{name} fold 0 with all"]


def test_pseudo_labels_are_measured_with_the_lessons_there_are(params: Params, artifacts: Artifacts) -> None:
    built("plain", 0, params, artifacts)
    write_json(artifacts.start("small"), resolve("small", params, artifacts.competition(), artifacts))
    student, teacher = (read_start(artifacts.start(name)) for name in ("small", "plain"))
    teach(student, teacher, 0, split_rows(ROWS, artifacts.folds(), 0).train, artifacts)
    found = measure("small", [0], params, artifacts)
    assert list(found.gains) == ["chats"] and found.gains["chats"].mean != 0


def test_lines_for_what_cannot_be_measured(
    params: Params, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folds_of("words", params, None) == [0, 1] and folds_of("alone", params, None) == [1]
    for name, fold, expected in (
        ("word", None, 'MEMBER: no member "word"'),
        ("plain", None, "MEMBER: plain learns no rows from elsewhere: its `extra` names no source"),
        ("alone", 0, "FOLD: expected one of 1, found 0"),
    ):
        with pytest.raises(PodiumError, match=expected):
            folds_of(name, params, fold)
    look = sources.quick_look
    monkeypatch.setattr(sources, "quick_look", lambda *given: replace(look(*given), training={"failed": "one class"}))
    with pytest.raises(
        PodiumError, match="words fold 0 with all: one class: it learns nothing, so no gain can be told"
    ):
        measure("words", [0], params, artifacts)
    assert not Path("work/sources").exists()
    SOURCES.parent.mkdir(exist_ok=True)
    SOURCES.write_text("[")
    with pytest.raises(PodiumError, match=r"work/sources\.json: broken .*; run `make sources`, or delete it"):
        read_measured()


def test_page_and_build_tell_what_was_measured_and_what_was_not(
    tmp_path: Path,
    params: Params,
    artifacts: Artifacts,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_run(tmp_path / "run")
    assert "What rows from elsewhere bring" not in rendered(run)
    for fold in (0, 1):
        told = {"votes": {"rows": 70 + fold, "unsure": 0}, "noise": {"rows": 80, "unsure": 0}}
        receipt = {"member": "words", "fold": fold, "start": "now", "training": None, "extra": told}
        write_json(run / f"artifacts/receipts/words-fold{fold}.json", receipt)
    write_json(run / "artifacts/receipts/gone-fold0.json", receipt | {"member": "gone"})
    page = Page(rendered(run))
    assert page.row("words", "votes") == ["words", "votes", "70", "not measured: make sources MEMBER=words"]
    gain = {"mean": 0.0123, "low": -0.0045, "high": 0.0201}
    known = {"start": "now", "folds": [0, 1], "rows": 1800, "gains": {"votes": gain, ALL: gain}}
    write_json(run / SOURCES, {"words": known})
    page = Page(rendered(run))
    shown = ["0.0123 (−0.0045 to 0.0201)", "", "1,800 rows, fold 0, 1"]
    assert page.row("words", "votes") == ["words", "votes", "70", *shown]
    assert page.row("words", ALL) == ["words", ALL, "", *shown] and "gone" not in page.text
    assert page.row("words", "noise")[-1] == "not measured: make sources MEMBER=words"
    edit(run, str(SOURCES), lambda value: value["words"].update(start="before"))
    assert Page(rendered(run)).row("words", "votes")[-1].endswith("; before the member's last change")

    built("words", 0, params, artifacts)
    say_sources(params)
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines == [f"words: what {x} brings is not measured; make sources MEMBER=words" for x in ("votes", "noise")]
    write_json(SOURCES, {"words": asdict(measure("words", [0], params, artifacts))})
    capsys.readouterr()
    say_sources(params)
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("words: votes brought +0.") and first.endswith(" on 24 rows of fold 0")
    assert last.startswith(f"words: {ALL} brought ")


def test_what_is_told_is_what_was_measured() -> None:
    found = Measured("s", (0,), 24, {})
    receipt = {"member": "m", "start": "s", "extra": {"a": {"rows": 3}}}
    (one,) = brought([receipt], {"m": asdict(found)})
    assert (
        one.gain is None
        and not one.outdated
        and one.line() == "m: what a brings is not measured; make sources MEMBER=m"
    )
