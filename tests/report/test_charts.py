"""The report's statistics against plain numpy and sums by hand, and the geometry of its drawings."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from support import CLASSES

from pipeline.report import charts
from pipeline.report.charts import Bin, Scale


def made(seed: int, rows: int = 40, shift: tuple[float, ...] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return softmax(np.random.default_rng(seed).normal(size=(rows, 3)) + np.asarray(shift), axis=1)


def by_hand(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of log-probabilities without their row and column means."""
    parts = []
    for one in (first, second):
        logs = np.log(one)
        parts.append((logs - logs.mean(1, keepdims=True) - logs.mean(0) + logs.mean()).ravel())
    return float(np.corrcoef(*parts)[0, 1])


def test_correlations_agree_with_numpy() -> None:
    first, second = made(1), made(2)
    mixed = softmax(np.log(first) + 0.5 * np.log(second), axis=1)
    values, shared = charts.correlations([first, second, mixed], CLASSES)
    for i, one in enumerate((first, second, mixed)):
        for j, other in enumerate((first, second, mixed)):
            assert values[i, j] == pytest.approx(by_hand(one, other), abs=1e-12)
    assert values[0, 2] > 0.7 and (shared == 40).all() and np.array_equal(values, values.T)


def test_correlations_use_the_rows_that_both_cover() -> None:
    first, second, third = made(1), made(2), made(3)
    first[:10], second[25:], third[:] = np.nan, np.nan, 1 / 3
    values, shared = charts.correlations([first, second, third], CLASSES)
    assert shared.tolist() == [[30, 15, 30], [15, 25, 25], [30, 25, 40]]
    assert values[0, 1] == pytest.approx(by_hand(first[10:25], second[10:25]), abs=1e-12)
    assert np.isnan(values[2]).all() and np.isnan(values[:, 2]).all()


def test_class_shares_alone_do_not_make_members_alike() -> None:
    shift = (2.0, 0.0, -3.0)
    values, _ = charts.correlations([made(1, 4000, shift), made(2, 4000, shift)], CLASSES)
    assert abs(values[0, 1]) < 0.05


def test_correlations_of_one_member_and_of_no_shared_rows() -> None:
    assert charts.correlations([made(1)], CLASSES)[0] == pytest.approx(np.ones((1, 1)))
    first, second = made(1), made(2)
    first[1:], second[:1] = np.nan, np.nan
    values, shared = charts.correlations([first, second], CLASSES)
    assert np.isnan(values[0]).all() and values[1, 1] == pytest.approx(1.0) and shared[0, 1] == 0


def test_bins_by_hand() -> None:
    probability = np.array([0.9, 0.1, 0.3, np.nan, 0.2, 0.8])
    hit = np.array([1, 0, 1, 1, 0, 0])
    assert charts.reliability(hit, probability, bins=2) == [
        Bin(3, pytest.approx(0.2), pytest.approx(1 / 3)),
        Bin(2, pytest.approx(0.85), pytest.approx(0.5)),
    ]
    gap = charts.calibration_error([Bin(3, 0.2, 0.3), Bin(1, 0.8, 0.4)])
    assert gap == pytest.approx((3 * 0.1 + 1 * 0.4) / 4)


@given(rows=st.integers(0, 700), seed=st.integers(0, 99))
def test_bins_hold_equal_counts_and_lose_no_row(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random(rows).round(1)
    hit = rng.random(rows) < probability
    bins = charts.reliability(hit, probability)
    counts = [one.rows for one in bins]
    assert sum(counts) == rows and len(bins) <= charts.MOST_BINS and (not rows or max(counts) - min(counts) <= 1)
    assert sum(one.rows * one.observed for one in bins) == pytest.approx(hit.sum())
    predicted = [one.predicted for one in bins]
    assert predicted == sorted(predicted)
    assert (charts.calibration_error(bins) is None) == (rows == 0)


def test_chance_bars_hold_95_of_100_calibrated_bins() -> None:
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(60):
        probability = rng.uniform(0.1, 0.9, 2000)
        bins = charts.reliability(rng.random(2000) < probability, probability)
        inside += [low <= one.observed <= high for one in bins for low, high in [one.chance]]
    assert 0.92 < np.mean(inside) < 0.98


@pytest.mark.parametrize(("left", "right"), [(1.1, 0.7), (0.3, 0.8)])
def test_a_scale_puts_the_better_end_on_the_right_and_clips(left: float, right: float) -> None:
    scale = Scale(left, right)
    ends = [scale.percent(value) for value in (left, (left + right) / 2, right)]
    assert ends == pytest.approx([0, 50, 100])
    step = right - left
    assert (scale.percent(left - step), scale.percent(right + step)) == (0, 100)
    assert Scale(0.5, 0.5).percent(0.5) == 50


@pytest.mark.parametrize("greater", [False, True])
def test_ladder_bars_are_as_long_as_the_gains(greater: bool) -> None:
    sign = 1 if greater else -1
    rungs = [("prior", "p", 1.0), ("member", "m", 1.0 + sign * 0.1), ("chosen", "c", 1.0 + sign * 0.2)]
    rows = charts.ladder([*rungs, ("bayes", "b", 1.0 + sign * 0.4)], 1.0 + sign * 0.4, 0.01, greater)
    bars = [re.findall(r'<rect.* x="([\d.]+)%" width="([\d.]+)%"', row["strip"]) for row in rows]
    assert bars[0] == bars[3] == []
    (member,), (chosen,) = bars[1], bars[2]
    assert member[0] == chosen[0] == "0.00" and float(chosen[1]) == pytest.approx(2 * float(member[1]), abs=0.02)
    assert [row["gain"] for row in rows[1:]] == pytest.approx([0.1, 0.2, 0.4]) and rows[0]["gain"] is None
    assert ["error" in row["strip"] for row in rows] == [False, False, True, False]
    assert all("bayes" in row["strip"] for row in rows)


def test_a_score_far_below_the_prior_does_not_flatten_the_ladder() -> None:
    rungs = [("prior", "p", 1.0), ("member", "broken", 9.0), ("member", "none", None), ("chosen", "c", 0.8)]
    broken, none, chosen = charts.ladder(rungs, None, None, False)[1:]
    assert "worse" in broken["strip"] and "cut" in broken["strip"] and broken["gain"] == -8.0
    assert "<rect" not in none["strip"] and none["gain"] is None
    (width,) = re.findall(r'width="([\d.]+)%"', chosen["strip"])
    assert float(width) > 60
    assert charts.ladder([("prior", "p", None), ("chosen", "c", 0.8)], None, None, False) == []


def test_a_fold_strip_has_a_dot_per_fold() -> None:
    strip = charts.fold_strip(Scale(1.0, 0.5), {0: 1.0, 2: 0.75}, None)
    assert re.findall(r'cx="([\d.]+)%".*?<title>([^<]*)', strip) == [
        ("0.00", "fold 0: 1.0000"),
        ("50.00", "fold 2: 0.7500"),
    ]


def test_a_reliability_plot_places_its_dots() -> None:
    plot = charts.reliability_plot("<a&b>", [Bin(9, 0.1, 0.2), Bin(9, 0.3, 0.4)], [])
    dots = re.findall(r'<circle class="stack" cx="([\d.]+)" cy="([\d.]+)"', plot)
    # The axes end at 0.4, which is 250 units long; x starts at 40, y at 258 and goes up.
    assert dots == [("102.5", "133.0"), ("227.5", "8.0")]
    assert "&lt;a&amp;b&gt;" in plot and "9 rows: predicted 10.0%, observed 20.0%" in plot and ">40%<" in plot


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.994, "0.99 s"),
        (0.997, "1.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (32400.0, "9 h 00 min"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_times_read_well(seconds: float | None, text: str) -> None:
    assert charts.time_text(seconds) == text


def test_numbers_read_well() -> None:
    assert [charts.score_text(value) for value in (0.97312, -0.00126, None, math.inf)] == [
        "0.9731",
        "−0.0013",
        "–",
        "–",
    ]
    assert [charts.share_text(value) for value in (0.5, 0.0, 0.0001, 1.0, None)] == [
        "50.0%",
        "0.0%",
        "<0.1%",
        "100.0%",
        "–",
    ]
    assert [charts.tiny_text(value) for value in (3.14e-7, 0.0, math.nan)] == ["3.1e−07", "0", "–"]
    assert charts.count_text(57477) == "57,477" and charts.count_text(None) == "–"
    assert [charts.plain_text(value) for value in (["a", 1], 0.123456, True, None)] == ["a, 1", "0.1235", "True", "–"]


@pytest.mark.parametrize(("share", "width"), [(0.0, "0.00"), (1e-6, "0.40"), (0.25, "25.00"), (7.0, "100.00")])
def test_a_share_is_visible_and_stays_inside(share: float, width: str) -> None:
    assert f'width="{width}%"' in charts.share_strip(share)
