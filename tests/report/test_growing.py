"""The page while a build runs: it shows what is finished and what is to come, and leaves no trace on the whole page."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import polars as pl
import pytest

from pipeline.artifacts import Artifacts
from pipeline.files import read_json, write_json
from pipeline.members.fold import fold_score
from pipeline.report import growing
from pipeline.report.growing import PAGE, GrowingPage
from pipeline.report.progress import render_progress

RECEIPT = Path("artifacts/receipts/words-fold1.json")


@pytest.fixture
def build(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """A run in the working directory that was finished an hour ago, with yesterday's page; returns the time now."""
    for name in ("competition", "folds.parquet", "start", "receipts", "oof"):
        copy = shutil.copytree if (finished / "artifacts" / name).is_dir() else shutil.copyfile
        (tmp_path / "artifacts").mkdir(exist_ok=True)
        copy(finished / "artifacts" / name, tmp_path / "artifacts" / name)
    shutil.copy(finished / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, seconds in {"finetune@words-0": 8.0, "finetune@words-1": 4.0, "oof": 3.0, "stack": 20.0}.items():
        write_json(Path(f"work/seconds/{name}.json"), seconds)
    now = time.time()
    for file in (*Path("work/seconds").iterdir(), *RECEIPT.parent.iterdir()):
        os.utime(file, (now - 3600, now - 3600))
    PAGE.parent.mkdir()
    PAGE.write_text("yesterday's")
    return now


def trained() -> None:
    """Lets the fold model be one of this build. Not the kernel's own time, which may be a few milliseconds behind."""
    os.utime(RECEIPT, (time.time(), time.time()))


def text(page: str) -> str:
    return " ".join(re.sub(r"<style>.*</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_it_shows_scores_and_what_is_to_come(build: float, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts()
    part = pl.read_parquet(artifacts.oof_part("words", 0))
    rows = artifacts.train().collect().filter(pl.col("id").is_in(part["id"].implode()))
    assert rows["id"].sort().equals(part["id"].sort())
    part = rows.select("id").join(part, on="id", maintain_order="left")
    score = fold_score(rows, part.drop("id").to_numpy(), artifacts.competition())
    RECEIPT.unlink()
    write_json(Path("work/seconds/finetune@words-0.json"), 8.0)  # of this build: half as fast as its stages say
    monkeypatch.setattr(time, "time", lambda: build)  # no second more, however busy the machine is
    page = render_progress(build - 16, 5)
    assert f"words {score:.4f} to come" in text(page)
    # What is known: a fold of 4 s, oof's 3 s, the stack's 20 s, at half their pace.
    assert "54 s still to come, and 5 stages that never ran here" in text(page)
    assert "finetune words-1 4.0 s probe – oof 3.0 s stack 20 s" in text(page)
    assert '<meta http-equiv="refresh" content="5">' in page
    stopped = render_progress(build - 16, None)
    assert "refresh" not in stopped and "stopped after 16 s, before its report" in text(stopped)


def test_a_changed_member_is_to_come_and_a_collapsed_one_is_said(build: float) -> None:
    receipt = read_json(RECEIPT)
    write_json(RECEIPT, receipt | {"training": {"collapsed": True}})
    write_json(Artifacts().start("friend"), read_json(Artifacts().start("friend")) | {"threads": 9})
    shown = text(render_progress(build, 5))
    assert re.search(r"words \d\.\d{4} collapsed", shown) and "friend to come to come" in shown


def test_a_build_without_new_folds_leaves_the_page_alone(build: float) -> None:
    with GrowingPage() as page:
        write_json(Path("work/seconds/package.json"), 1.0)
        page.look()
        page.finished = True
    assert PAGE.read_text() == "yesterday's"


def test_the_page_grows_and_gives_way_to_the_report(build: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "LOOK", 0.05)
    with GrowingPage() as page:
        trained()
        for _ in range(200):
            if (before := PAGE.read_text()) != "yesterday's":
                break
            time.sleep(0.05)
        assert "refresh" in before and "stack 20 s" in text(before)
        write_json(Path("work/seconds/stack.json"), 21.0)
        for _ in range(200):
            if (after := PAGE.read_text()) != before:
                break
            time.sleep(0.05)
        assert "oof 3.0 s diagnostics" in text(after)
        PAGE.unlink()  # as DVC does before the stage `report`
        page.over.wait(0.2)
        PAGE.write_text("the report")
        write_json(Path("work/seconds/report.json"), 1.0)
        page.look()
    assert PAGE.read_text() == "the report"
    assert [each.name for each in PAGE.parent.iterdir()] == [PAGE.name]


@pytest.mark.parametrize("ended", [True, False])
def test_what_is_left_by_a_build_whose_report_did_not_run(build: float, ended: bool) -> None:
    with GrowingPage() as page:
        trained()
        page.look()
        assert "refresh" in PAGE.read_text()
        page.finished = ended
    left = PAGE.read_text()
    assert left == "yesterday's" if ended else "refresh" not in left and "stopped" in text(left)


def test_a_file_that_is_just_replaced_costs_one_look(build: float) -> None:
    with GrowingPage() as page:
        trained()
        whole = Artifacts().competition_file.read_bytes()
        Artifacts().competition_file.write_bytes(whole[:20])
        page.look()
        assert PAGE.read_text() == "yesterday's"
        Artifacts().competition_file.write_bytes(whole)
        trained()
        page.look()
        assert "refresh" in PAGE.read_text()
