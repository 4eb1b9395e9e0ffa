"""The page is rendered from a made-up run on disk: it shows the numbers of the files, and odd files do not break it."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from report_run import FOLDS, PROBE, Page, edit, make_run, rendered

from pipeline.competitions.registry import load_competition
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json, write_parquet
from pipeline.report.evidence import load_evidence
from pipeline.report.page import headline
from stages import report


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_the_numbers_are_those_of_the_files(whole: Path) -> None:
    cv, found = read_json(whole / "metrics/cv.json"), read_json(whole / "metrics/rehearsal.json")
    page = Page(rendered(whole))
    for name, member in cv["members"].items():
        score, holdout = f"{member['score']:.4f}", f"{member['holdout']:.4f}"
        cells = [cell for cell in page.row(name, score, "") if cell]
        assert cells[:6] == [name, score, holdout, "900", "1", "0"]
        assert [name, *(f"{value:.4f}" for value in member["fold_scores"])] in page.rows
        assert page.row(name, f"{cv['decisive']['members'][name]:.4f}")
        assert page.row(name, "3.1e−13") == [name, "3.1e−13", "2.2e−15"]
    for name, score in cv["stack"]["candidates"].items():
        assert page.row(name, f"{score:.4f}")[2] == ("chosen" if name == "logistic" else "")
    assert page.row("stack") == ["stack", f"{cv['decisive']['stack']:.4f}"]
    for value in (cv["prior"], cv["bayes"], *(cv["stack"][key] for key in ("score", "standard_error", "holdout"))):
        assert f"{value:.4f}" in page.text
    for name, share in cv["classes"].items():
        assert f"{name} {100 * share:.1f}%" in page.text
    assert "1,000 training rows" in page.text and "600 test rows" in page.text
    assert "of 9 h 00 min" in page.text and "7.3 s" in page.text and "597" in page.text
    assert page.text.count("Plan: 12 steps") == 1 and found["network"] == "namespace" and "namespace" in page.text


def test_checks_and_diagnostics_are_those_of_the_files(run: Path) -> None:
    cv = read_json(run / "metrics/cv.json")
    for name in cv["members"]:
        gap = {"gap": 0.0211, "error": 0.0104, "relative": -0.0012, "relative_error": 0.0033, "leak": name == "shape"}
        cv["members"][name]["gap"] = gap
    gain = {"mean": 0.0321, "low": 0.0123, "high": 0.0456}
    cv["stack"]["gains"] = {"nested": {"best_member": gain, "equal_mean": gain}, "holdout": None}
    write_json(run / "metrics/cv.json", cv)
    page = Page(rendered(run))
    tested = ["0.0211 ± 0.0104", "−0.0012 ± 0.0033", "2.2e−16", "0.0087 ± 0.0091"]
    for name in cv["members"]:
        assert [name, *tested, "looks leaky" if name == "shape" else "sound"] in page.rows
        assert page.row(name, "0.0123", "") == [name, "0.0123", "", "−0.0006", ""]
        assert page.row(name, "0.33", "0.33") == [name, "0.33", "0.33", "0.33"]
    assert page.row("the members' equal mean") == ["the members' equal mean", "0.0321(0.0123 to 0.0456)", "–"]
    assert page.row("two turns") == ["two turns", "321", "1.0412", "0.9123", "0.9011", "0.0112 ± 0.0034"]
    assert "r17: Is 1 < 2 & 3?" in page.text
    assert "No leak found. On shuffled labels" in page.text
    assert "−0.0016 ± 0.0013" in page.text


def test_a_leak_found_by_the_probe_is_the_first_thing_said(run: Path) -> None:
    write_json(run / "metrics/probe.json", PROBE | {"gain": 0.2, "leak": True})
    text = Page(rendered(run)).text
    assert "1 warning" in text
    assert text.index("labels reach their own predictions") < text.index("Stack, level-2 nested")
    assert "Leak. On shuffled labels" in text


def test_the_headline_is_one_line_with_the_scores(whole: Path) -> None:
    cv = read_json(whole / "metrics/cv.json")
    stack = cv["stack"]
    expected = f"log loss {stack['score']:.4f} ± {stack['standard_error']:.4f} (level-2 nested, stacker logistic), "
    expected += f"holdout {stack['holdout']:.4f}, prior {cv['prior']:.4f}, bayes {cv['bayes']:.4f}"
    assert headline(load_evidence(whole)) == expected


def test_folds_of_a_member_are_summed_and_gone_members_left_out(run: Path) -> None:
    for name, seconds in {"finetune@gone-0": 9999.0, "refit@gone": 9999.0, "finetune@words-0": 61.25}.items():
        write_json(run / f"work/seconds/{name}.json", seconds)
    text = " ".join(Page(rendered(run)).text.split())
    words = 61.25 + 2.25 + 3.25 + 4.25
    shape, blend = (sum(1.25 + k + i for k in range(FOLDS)) for i in (1, 2))
    total = words + shape + blend + 0.6 + 0.412 + 0.25 + 0.31 + 11.2 + 0.9 + 9.75
    assert "finetune words 4 folds1 min 11 s" in text
    assert f"total{int(total // 60)} min {round(total) % 60:02} s" in text
    assert "gone" not in text and "9999" not in text
    order = [text.rindex(stage) for stage in ("prepare0.41", "folds0.25", "start0.6", "finetune blend", "oof0.31")]
    assert order == sorted(order)


def test_the_page_needs_nothing_from_outside(whole: Path) -> None:
    text = rendered(whole)
    assert re.findall(r"(?i)\b(?:src|srcset|poster|action)\s*=", text) == []
    assert {link[:1] for link in re.findall(r'href="([^"]*)"', text)} == {"#", "d"}
    assert (
        re.findall(r"(?i)<script|<iframe|<object|<embed|@import|@font-face|url\s*\(|https?:|<use|\son\w+=", text) == []
    )
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    first = rendered(run)
    write_json(run / "work/seconds/report.json", 77.0)
    assert rendered(run) == first == rendered(Path(shutil.copytree(run, run.parent / "elsewhere")))


def test_names_are_escaped(tmp_path: Path) -> None:
    lmsys = load_competition("lmsys")
    sly = replace(lmsys, name="<b>&sly", classes=("<script>a</script>", 'b"&amp;', "{{ c }}"))
    run = make_run(tmp_path, sly, {"<img onerror=x>": (0.6, 0.5), "a&b'": (0.5, 0.6)})
    edit(run, "metrics/cv.json", lambda cv: cv["warnings"].append("<u>fold 3 & 4</u>"))
    text = rendered(run)
    page = Page(text)
    for name in (sly.name, *sly.classes, "<img onerror=x>", "a&b'", "<u>fold 3 & 4</u>"):
        assert name in page.text
    assert re.findall(r"<(?:script|img|u>|b>&sly)", text) == []


def no_columns(run: Path) -> None:
    oof = pl.read_parquet(run / "artifacts/oof/oof.parquet")
    write_parquet(
        oof.select(column for column in oof.columns if "shape" not in column), run / "artifacts/oof/oof.parquet"
    )


def cv_edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda run: edit(run, "metrics/cv.json", change)


def rehearsal_edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda run: edit(run, "metrics/rehearsal.json", change)


@pytest.mark.parametrize(
    ("spoil", "shown", "hidden"),
    [
        (cv_edit(lambda cv: cv["stack"].update(holdout=None)), "holdoutnot measured", ""),
        (
            cv_edit(lambda cv: cv["stack"].update(holdout=math.nan, standard_error=None)),
            "holdoutnot measured",
            "± 0.01",
        ),
        (cv_edit(lambda cv: cv["stack"].update(standard_error=0.0123)), "± 0.0123", ""),
        (cv_edit(lambda cv: cv.pop("bayes")), "It beats the prior by 0.1", "Bayes"),
        (cv_edit(lambda cv: cv.update(prior=0.7)), "It does not beat the prior", ""),
        (cv_edit(lambda cv: cv.update(prior=math.nan)), "constant answer (prior)–", "log lossgain"),
        (cv_edit(lambda cv: cv["stack"].update(rows=450)), "on the 450 of 900 rows that every member covers", ""),
        (cv_edit(lambda cv: cv["stack"].update(rows=900)), "gain", "that every member covers"),
        (rehearsal_edit(lambda found: found.update(parity_max_abs_diff=None)), "for the same rows.", "in fp32"),
        (cv_edit(lambda cv: cv.pop("decisive")), "Calibration", "Decisive"),
        (cv_edit(lambda cv: cv.pop("classes")), "1,000 training rows", "winner_tie 2"),
        (cv_edit(lambda cv: cv["stack"].pop("temperature")), "Stack candidates", "temperature"),
        (cv_edit(lambda cv: cv["members"]["shape"].update(score=None, holdout=None, fold_scores=[])), "shape–", ""),
        (cv_edit(lambda cv: cv["members"]["shape"].update(fold_scores=[None, 0.9, math.nan, 1.1])), "0.9000", ""),
        (cv_edit(lambda cv: cv["members"]["shape"].update(seconds=None, score=55.0)), "55.0000", ""),
        (cv_edit(lambda cv: cv.update(warnings=["fold 2 of words collapsed"])), "1 warningfold 2 of words", ""),
        (rehearsal_edit(lambda found: found.update(valid=False)), "1 warningThe rehearsal", "✓"),
        (rehearsal_edit(lambda found: found.update(network="sockets")), "by refusing sockets", "namespace"),
        (rehearsal_edit(lambda found: found.pop("plan")), "Rows per rung", "Plan"),
        (rehearsal_edit(lambda found: found.update(plan=["prior", "tabular"])), "Plan: 2 steps#step1prior2tabular", ""),
        (rehearsal_edit(lambda found: found.update(plan=[{"step": "a", "rows": None}])), "#steprows1a–", ""),
        (rehearsal_edit(lambda found: found.update(rows=0, rows_per_rung={}, parity={})), "✓ valid0 rows", ""),
        (lambda run: shutil.rmtree(run / "work"), "not measured", "total"),
        (no_columns, "shape", "Fold 4"),
    ],
)
def test_what_is_missing_or_odd_does_not_break_the_page(
    run: Path, spoil: Callable[[Path], None], shown: str, hidden: str
) -> None:
    spoil(run)
    text = rendered(run)
    seen = re.sub(r"\s*\n\s*", "", Page(text).text)
    assert shown in seen
    assert not hidden or hidden not in seen
    assert re.findall(r"\b(?:nan|None|inf|Undefined)\b", text) == []
    assert headline(load_evidence(run)).startswith("log loss 0.")


def test_one_member_of_a_single_text_task(tmp_path: Path) -> None:
    spooky = load_competition("spooky")
    page = Page(rendered(make_run(tmp_path, spooky, {"words": (0.6, 0.5)}, bayes=False, folds=2)))
    assert "nothing to compare it with" in page.text and "Decisive" not in page.text
    assert "winner" not in page.text and "HPL" in page.text


def test_members_that_train_some_folds_only(tmp_path: Path) -> None:
    page = Page(rendered(make_run(tmp_path, trained={"words": (3,), "shape": (0, 2)})))
    cv = read_json(tmp_path / "metrics/cv.json")
    words, shape = (f"{value:.4f}" for value in (cv["members"][name]["fold_scores"][-1] for name in ("words", "shape")))
    assert ["words", "–", "–", "–", words] in page.rows
    assert page.row("shape", f"{cv['members']['shape']['fold_scores'][0]:.4f}")[2:] == ["–", shape, "–"]
    # No row is covered by both, so there is nothing to correlate.
    assert [cell for row in page.rows if row[0] == "words" and "1.00" in row for cell in row].count("–") == 1


def test_fifteen_members_and_an_accuracy(tmp_path: Path) -> None:
    members = {f"member_{i}": (0.3 + 0.03 * i, 0.5) for i in range(15)}
    competition = replace(load_competition("lmsys"), metric="accuracy")
    page = Page(rendered(make_run(tmp_path, competition, members)))
    assert "accuracy, higher is better" in page.text and "It goes " in page.text
    names = [row[0] for row in page.rows if row[0] in members and len(row) == 8]
    scores = {name: found["score"] for name, found in read_json(tmp_path / "metrics/cv.json")["members"].items()}
    assert names == sorted(names, key=lambda name: -scores[name]) and len(names) == 15
    assert sum(row.count("1.00") for row in page.rows) >= 15


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("metrics/cv.json", "stack"),
        ("metrics/rehearsal.json", "rehearse"),
        ("artifacts/oof/oof.parquet", "oof"),
        ("artifacts/stack/level2.parquet", "stack"),
        ("artifacts/competition/competition.json", "prepare"),
    ],
)
def test_a_missing_or_broken_file_names_its_stage(run: Path, file: str, stage: str) -> None:
    (run / file).write_text("{ half")
    with pytest.raises(PodiumError, match=rf"^{re.escape(file)}: broken \(.*\); .*`dvc repro -f {stage}`$"):
        load_evidence(run)
    (run / file).unlink()
    with pytest.raises(PodiumError, match=rf"^{re.escape(file)}: missing; .*`dvc repro {stage}`$"):
        load_evidence(run)


@pytest.mark.parametrize("value", ['"quick"', "null", "NaN", "[1]", "{"])
def test_seconds_that_are_no_number_are_refused(run: Path, value: str) -> None:
    (run / "work/seconds/stack.json").write_text(value)
    with pytest.raises(PodiumError, match=r"^work/seconds/stack\.json: expected one number"):
        load_evidence(run)


def test_the_stage_writes_the_page_or_ends_with_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run)
    monkeypatch.delenv("PODIUM_DEBUG", raising=False)
    report.main()
    page = Path("reports/index.html").read_text(encoding="utf-8")
    assert page == rendered(run)
    assert capsys.readouterr().out == f"reports/index.html: {headline(load_evidence(run))}\n"
    shutil.rmtree("reports")
    Path("metrics/rehearsal.json").unlink()
    with pytest.raises(SystemExit) as ended:
        report.main()
    assert ended.value.code == 2 and not Path("reports").exists()
    told = capsys.readouterr().err
    assert told.startswith("error: metrics/rehearsal.json: missing") and told.count("\n") == 1


@pytest.mark.parametrize(
    ("medals", "expected"),
    [
        ({"gold": 0.8, "silver": 0.99, "bronze": 1.0}, "as a private scoresilver"),
        ({"bronze": 0.5}, "as a private scoreno medal"),
        ({}, None),
    ],
)
def test_the_medal_that_such_a_private_score_would_have_won(run: Path, medals: dict, expected: str | None) -> None:
    edit(run, "metrics/cv.json", lambda cv: cv["stack"].update(score=0.95))
    edit(run, "artifacts/competition/competition.json", lambda found: found["competition"].update(medals=medals))
    seen = re.sub(r"\s*\n\s*", "", Page(rendered(run)).text)
    assert (expected in seen) if expected else ("private score" not in seen)
