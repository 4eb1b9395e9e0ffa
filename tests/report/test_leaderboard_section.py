"""The section on submissions: there with a ledger, gone without, the same bytes each time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_run import make_run

from pipeline.errors import PodiumError
from pipeline.ledger.agreement import agreement
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
