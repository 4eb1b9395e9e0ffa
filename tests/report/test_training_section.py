"""The section on training: the numbers of receipts and pretraining, the geometry of the curves, what went wrong."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import Page, edit, make_run, rendered
from support import CLASSES

from pipeline.competitions.family import Bernoulli, Gaussian
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.report.evidence import load_evidence
from pipeline.report.stability_section import Row, panels, seeds_plot, ticks
from pipeline.report.training_section import HEIGHT, LEFT, TOP, WIDTH, Line, curve_plot, prior_loss, thinned

MEMBERS = {"words": (0.6, 0.5), "siamese": (0.7, 0.5), "judge": (0.3, 0.6)}


def record(fold: int, steps: int = 300, collapsed: bool = False, inner: bool = True) -> dict[str, Any]:
    """What a fold's training tells, made up: a noisy curve that falls, or stays at the prior."""
    rng = np.random.default_rng(fold)
    fall = 0.0 if collapsed else 0.17
    curve = [
        (step, 1.08 - fall * (1 - math.exp(-step / 90)) + 0.5 * math.exp(-step / 6) + rng.normal(0, 0.05))
        for step in range(2, steps + 1, 2)
    ]
    scores = [(step, 1.0 + (step / steps - 0.7 - fold / 20) ** 2 / 3) for step in range(50, steps + 1, 50)]
    truncation = {
        name: {"rows": rows, "tokens": rows / 3} for name, rows in {"prompt": 0.0, "a": 0.112, "b": 0.0987}.items()
    }
    return {
        "curve": curve,
        "inner": scores if inner else [],
        "best": min(scores, key=lambda each: each[1])[0] if inner else None,
        "skipped": 3 if fold == 2 else 0,
        "truncation": truncation,
        "collapsed": collapsed,
        "attempts": [{"attempt": 0}, {"attempt": 1}] if fold == 3 else [{"attempt": 0}],
    }


def add_networks(root: Path) -> Path:
    """Receipts of two networks (one with a collapsed fold) and of a tabular member, and one pretrained backbone."""
    for fold in range(4):
        told = {
            "words": None,
            "siamese": record(fold),
            "judge": record(fold, 240, collapsed=fold == 1, inner=False),
            "gone": record(fold),
        }
        for member, training in told.items():
            receipt = {"member": member, "fold": fold, "trained": True, "training": training}
            write_json(root / f"artifacts/receipts/{member}-fold{fold}.json", receipt)
    curve = [(step, 4.1 + 3.9 * math.exp(-step / 60)) for step in range(1, 200)]
    facts = {"sequences": 6912, "tokens": 812345, "perplexity_before": 4031.22, "perplexity_after": 61.25}
    write_json(root / "artifacts/pretrained/bert/pretraining.json", facts | {"curve": curve})
    write_json(root / "artifacts/pretrained/none/unchanged.json", {})
    edit(root, "metrics/cv.json", lambda cv: cv["members"]["judge"].update(collapsed=1))
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return add_networks(make_run(tmp_path, members=MEMBERS))


def test_without_networks_there_is_no_section(tmp_path: Path) -> None:
    make_run(tmp_path)
    without = rendered(tmp_path)
    assert 'id="training"' not in without
    for folder in ("artifacts/receipts", "artifacts/pretrained/none"):
        (tmp_path / folder).mkdir(parents=True)
    write_json(tmp_path / "artifacts/receipts/words-fold0.json", {"member": "words", "fold": 0, "training": None})
    write_json(tmp_path / "artifacts/pretrained/none/unchanged.json", {})
    assert rendered(tmp_path) == without


def test_the_numbers_are_those_of_the_receipts(run: Path) -> None:
    text = rendered(run)
    page = Page(text)
    for fold in range(4):
        told = record(fold)
        best = f"{dict(told['inner'])[told['best']]:.4f}"
        cut = ["0.0%/ 0.0%", "11.2%/ 3.7%", "9.9%/ 3.3%"]
        skipped = str(told["skipped"])
        assert page.row("siamese", str(fold), "2" if fold == 3 else "1", "300") == [
            "siamese",
            str(fold),
            "2" if fold == 3 else "1",
            "300",
            str(told["best"]),
            best,
            skipped,
            *cut,
        ]
    assert page.row("judge", "0", "1", "240")[4:7] == ["the last", "–", "0"]
    assert page.row("bert") == ["bert", "4031.2", "61.2", "6,912", "812,345"]
    assert "gone" not in page.text and 'href="#training"' in text
    assert "no better" in page.text
    entropy = prior_loss(read_json(run / "metrics/cv.json")["classes"], CLASSES)
    assert entropy is not None and f"loss of the prior, {entropy:.4f}" in page.text
    assert text.count('<svg class="reliability curve"') == 3
    assert re.findall(r"\b(?:nan|None|inf|Undefined)\b", text) == []


def test_what_went_wrong_is_said_at_the_top_and_in_the_section(run: Path) -> None:
    edit(run, "metrics/cv.json", lambda cv: cv.update(dropped={"gone": "all <4> fold models collapsed"}))
    page = Page(rendered(run))
    for line in (
        'member "judge": 1 fold model COLLAPSED (fold 1), no better than the prior',
        'member "gone" was LEFT OUT of stack and package: all <4> fold models collapsed',
    ):
        assert page.text.count(line) == 2
    assert "2 warnings" in page.text
    assert page.row("judge", "1")[4] == "collapsed, the last"
    assert page.row("gone", "0")[3] == "300"  # what was left out shows its curves, too


def test_every_run_that_the_guard_stopped_is_told_with_its_reason(run: Path) -> None:
    assert "Stopped by the guard" not in rendered(run)
    line = "fold 2, attempt 1 (rate 0.0007, warmup 10%), 54 of 189 steps: the logits <no longer> differ"
    edit(run, "metrics/cv.json", lambda cv: cv["members"]["siamese"].update(stopped=[line]))
    page = Page(rendered(run))
    assert "Stopped by the guard" in page.text and f"siamese {line}" in page.text


def test_collapsed_models_without_receipts_are_counted(run: Path) -> None:
    edit(run, "metrics/cv.json", lambda cv: cv["members"]["words"].update(collapsed=3))
    assert 'member "words": 3 fold models COLLAPSED, no better' in Page(rendered(run)).text


def test_empty_and_odd_records_do_not_break_the_page(run: Path) -> None:
    for fold, odd in enumerate(({"curve": [], "inner": []}, {"curve": [[1, math.nan]]}, {"curve": [[1, 1.0]]}, {})):
        edit(run, f"artifacts/receipts/judge-fold{fold}.json", lambda receipt, odd=odd: receipt.update(training=odd))
    for fold in range(4):
        changed = record(fold) | {"best": 7, "truncation": {}}
        edit(run, f"artifacts/receipts/siamese-fold{fold}.json", lambda each, new=changed: each.update(training=new))
    edit(run, "artifacts/pretrained/bert/pretraining.json", lambda found: found.update(curve=[], perplexity_after=None))
    edit(run, "metrics/cv.json", lambda cv: cv.pop("classes"))
    text = rendered(run)
    assert Page(text).row("bert")[1:3] == ["4031.2", "–"]
    assert "loss of the prior" not in text and re.findall(r"\b(?:nan|None|inf|Undefined)\b", text) == []


@pytest.mark.parametrize(
    ("file", "stage"),
    [
        ("artifacts/receipts/judge-fold1.json", "finetune"),
        ("artifacts/pretrained/bert/pretraining.json", "pretrain@bert"),
    ],
)
def test_a_broken_file_names_its_stage(run: Path, file: str, stage: str) -> None:
    (run / file).write_text("{ half")
    with pytest.raises(PodiumError, match=rf"^{re.escape(file)}: broken \(.*\); .*`dvc repro -f {stage}`$"):
        load_evidence(run)


def test_a_curve_places_its_points() -> None:
    line = Line("<a>", [(0, 2.0), (100, 1.0)], [(50, 1.5)], (50, 1.5), True)
    plot = str(curve_plot("<l>", [line], None))
    # The axis has 6% of room at both ends, so the middle is the middle.
    middle = f'cx="{LEFT + WIDTH / 2:.1f}" cy="{TOP + HEIGHT / 2:.1f}"'
    assert plot.count(middle) == 2 and "&lt;a&gt;, step 50: 1.5000" in plot and "&lt;l&gt;" in plot
    assert f'<polyline class="collapsed" points="{LEFT:.1f},' in plot and f" {LEFT + WIDTH:.1f}," in plot
    assert "diagonal" not in plot and curve_plot("none", [Line("a", [], [], None, False)], 1.0) == ""


@pytest.mark.parametrize("level", [None, 1.09, 40.0])
@pytest.mark.parametrize("loss", [0.2, 1.09, 900.0])
@pytest.mark.parametrize("steps", [1, 3, 70_000])
def test_curves_stay_in_the_frame(level: float | None, loss: float, steps: int) -> None:
    line = Line("fold 0", [(1, loss), (steps, 1.0)], [(steps, 1.02)], (steps, 1.02), False)
    plot = str(curve_plot("a", [line], level))
    pairs = [pair for points in re.findall(r'points="([^"]*)"', plot) for pair in points.split()]
    places = [tuple(map(float, pair.split(","))) for pair in pairs]
    places += [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', plot)]
    assert len(places) == 4
    for x, y in places:
        assert LEFT - 0.1 <= x <= LEFT + WIDTH + 0.1 and TOP - 0.1 <= y <= TOP + HEIGHT + 0.1


def test_thinning_keeps_the_mean_and_the_end() -> None:
    points = [(step, float(step)) for step in range(1, 201)]
    few = thinned(points, 50)
    assert len(few) == 50 and few[0] == (4, 2.5) and few[-1] == (200, 198.5)
    assert thinned(points[:7], 50) == points[:7] and thinned([]) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 2), (0.9, 1.13), (3.0, 8.3), (0, 71_000), (1.0, 1.0001)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 7 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_the_loss_of_the_prior() -> None:
    assert prior_loss({"a": 0.25, "b": 0.75, "c": 0.0}, CLASSES) == pytest.approx(0.5623, abs=1e-4)
    assert prior_loss({"toxic": 0.5, "threat": 0.5}, Bernoulli(2)) == pytest.approx(np.log(2))
    assert prior_loss({"score": 3.0}, Gaussian((3.0,), (2.0,))) == 0.5
    assert prior_loss({}, CLASSES) is None


def test_each_seed_is_a_dot_and_a_failed_one_stands_out() -> None:
    rows = [Row("plain <x>", [0.1, 0.3, 0.2], [True, False, False]), Row("guard", [0.3], [False])]
    plot = str(seeds_plot("y", rows))
    assert plot.count('<circle class="seed"') == 3 and plot.count('<circle class="failed"') == 1
    assert "plain &lt;x&gt;: mean 0.200" in plot and "plain &lt;x&gt;: 0.100, failed" in plot
    places = [float(each) for each in re.findall(r'cx="([\d.]+)"', plot)]
    assert places[0] < places[2] < places[1] == places[3]
    assert seeds_plot("y", []) == ""


def test_the_page_shows_the_benchmark_that_came_with_it(run: Path) -> None:
    assert "How much the seed alone changes" not in rendered(run)
    cell = {"data": "sentiment", "rate": "high", "f1": [0.1, 0.2], "failed_runs": [True, False]}
    found = {"date": "2026-01-02", "machine": "a <b>", "rates": {"high": 3e-3}}
    found["cells"] = [cell | {"strategy": name} for name in ("plain", "guard")]
    assert [title for title, _ in panels(found)] == ["sentiment, high rate (3e-03)"]
    write_json(run / "benchmarks/results/stability.json", found)
    text = rendered(run)
    assert text.count("How much the seed alone changes") == text.count("<details><summary>How much the seed alone") == 1
    assert "2026-01-02, a <b>" in Page(text).text
