"""The section on submissions: there with a ledger, gone without, the same bytes each time."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from report_run import make_run

from pipeline.errors import PodiumError
from pipeline.files import write_json
from pipeline.ledger.agreement import agreement
from pipeline.ledger.chosen import CHOICE, Candidate, Selection
from pipeline.ledger.ledger import Entry, ledger_text
from pipeline.report.evidence import load_evidence
from pipeline.report.leaderboard_section import SIZE, leaderboard, scatter
from pipeline.report.page import render


def entries(count: int) -> list[Entry]:
    return [
        Entry(
            n,
            f"{n:040x}",
            "2026-03-01T12:00:00",
            "complete",
            1.0 - n / 100,
            0.004,
            1.02 - n / 110 + (n % 2) / 100,
            None,
            20.0,
            4000.0,
            32400.0,
            f'members.a<b>.seed {n} → "{n + 1}"',
        )
        for n in range(1, count + 1)
    ]


def page(root: Path, text: str | None) -> str:
    if text is not None:
        (root / "ledger.csv").write_text(text)
    return render(load_evidence(root))


def test_it_is_there_once_there_are_scores(tmp_path: Path) -> None:
    make_run(tmp_path)
    without = page(tmp_path, None)
    assert "CV against LB" not in without
    assert page(tmp_path, ledger_text([])) == without
    shown = page(tmp_path, ledger_text(entries(6)))
    assert 'href="#leaderboard"' in shown
    assert "members.a&lt;b&gt;.seed 3 → &#34;4&#34;" in shown
    assert f"{entries(6)[2].public:.5f}" in shown
    assert "Pearson correlation of CV and public LB over 6 submissions: 0.9" in shown
    assert "the next public LB is expected from" in shown
    assert page(tmp_path, None) == shown


def test_a_submission_that_failed_has_a_row_and_no_dot(tmp_path: Path) -> None:
    make_run(tmp_path)
    failed = Entry(7, "f" * 40, "", "error", 0.99)
    shown = page(tmp_path, ledger_text([*entries(2), failed]))
    assert '<td class="n bad">error</td>' in shown
    assert len(re.findall(r"<title>sub-\d", shown)) == 2
    alone = leaderboard([failed], 1.0)
    assert alone is not None
    assert alone["plot"] is None


def test_a_broken_ledger_is_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(PodiumError, match=r"ledger\.csv: line 1: expected"):
        page(tmp_path, "a,b\n")


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("cv", [0.95, 3.0])
def test_dots_bar_and_line_stay_in_the_frame(count: int, cv: float) -> None:
    plot = str(scatter(entries(count), agreement(entries(count), cv)))
    left, top = 58.0, 10.0
    circles = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.-]+)" cy="([\d.-]+)"', plot)]
    assert len(circles) == count
    line = re.findall(r'class="diagonal" d="M([\d.-]+) ([\d.-]+)L([\d.-]+) ([\d.-]+)"', plot)
    assert len(line) == 1
    x1, y1, x2, y2 = map(float, line[0])
    assert x2 - x1 == pytest.approx(y1 - y2, abs=0.2)  # a gain across is the same gain up
    bars = re.findall(r'class="chance" d="M([\d.-]+) ([\d.-]+)V([\d.-]+)"', plot)
    assert len(bars) == (count >= 5)
    for x, y in [*circles, (x1, y1), (x2, y2), *((float(a), float(b)) for a, b, _ in bars)]:
        assert left - 0.1 <= x <= left + SIZE + 0.1
        assert top - 0.1 <= y <= top + SIZE + 0.1


def chosen(root: Path, publics: list[float | None], sentence: str = "select 1 and 3: <b>") -> None:
    """What `make choose` leaves of submissions with these public scores."""
    candidates = [
        Candidate(submission=n, cv=1.0, public=public, expected=1.01 + n / 1000, best=0.25, selected=n in (1, 3))
        for n, public in enumerate(publics, start=1)
    ]
    write_json(root / CHOICE, asdict(Selection(candidates=tuple(candidates), sentences=(sentence, "assumed: much"))))


def test_the_two_to_select_stand_below_the_submissions(tmp_path: Path) -> None:
    make_run(tmp_path)
    without = page(tmp_path, ledger_text(entries(3)))
    assert "Which two to select" not in without
    chosen(tmp_path, [one.public for one in entries(3)])
    shown = page(tmp_path, None)
    assert "Which two to select</h3>" in shown
    assert re.findall(r'<tr class="best"><th>(\d), select</th>', shown) == ["1", "3"]
    assert "1.01200" in shown and "select 1 and 3: &lt;b&gt;" in shown and "assumed: much" in shown
    (tmp_path / CHOICE).unlink()
    assert page(tmp_path, None) == without


def test_a_choice_that_newer_scores_have_overtaken_says_so(tmp_path: Path) -> None:
    make_run(tmp_path)
    overtaken = "as it stood before the newest scores"
    publics = [one.public for one in entries(3)]
    for known, expected in (
        (publics, False),
        (publics[:2], True),
        ([*publics[:2], None], True),
        ([*publics, None], False),
    ):
        chosen(tmp_path, known)
        assert (overtaken in page(tmp_path, ledger_text(entries(3)))) == expected
    chosen(tmp_path, publics)
    assert "Which two to select" not in page(tmp_path, ledger_text([]))  # another competition's, or an old one


def test_a_broken_choice_is_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    for text in ("{", "{}", '{"candidates": [1], "sentences": []}'):
        (tmp_path / CHOICE).write_text(text)
        with pytest.raises(PodiumError, match=r"work/choice\.json: broken"):
            page(tmp_path, ledger_text(entries(3)))
