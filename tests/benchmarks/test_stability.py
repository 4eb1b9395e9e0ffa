"""The stability benchmark's own honesty: its split, its scores, its tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHARED

from benchmarks.stability.protocol import LABELLED, RATES, SEEDS, SETS, parts_of, pretraining_texts
from benchmarks.stability.runs import Asked, scores
from benchmarks.stability.statistics import disagreement, holm, interval, null_check, p_values, ratio
from benchmarks.stability.strategies import ATTACKS, GENTLE, STRATEGIES
from benchmarks.stability.studies import POOL, STUDIES
from benchmarks.stability.tables import draw, tables
from pipeline.errors import PodiumError

quick = settings(max_examples=40, deadline=None)
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is missing")


@needs_data
@pytest.mark.parametrize("name", SETS)
def test_the_split_is_fixed_and_its_parts_share_no_row(name: str) -> None:
    parts, again = (parts_of(name, SHARED / "cs224n") for _ in range(2))
    assert len(parts.learned.labels) == LABELLED
    assert abs(len(parts.choice.labels) - len(parts.score.labels)) <= 1
    rows = [{str(row) for row in part.texts.rows()} for part in (parts.learned, parts.choice, parts.score)]
    if name == "paraphrase":  # a sentence of the treebank may stand in it twice
        assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
    for one, other in zip(vars(parts).values(), vars(again).values(), strict=True):
        assert one.texts.equals(other.texts) and np.array_equal(one.labels, other.labels)
    shares = [
        np.bincount(part.labels, minlength=SETS[name].classes) / len(part.labels)
        for part in (parts.choice, parts.score)
    ]
    assert np.allclose(*shares, atol=0.01)


@needs_data
def test_no_text_of_the_development_files_is_pretrained_on() -> None:
    known = set(pretraining_texts(SHARED / "cs224n"))
    parts = parts_of("sentiment", SHARED / "cs224n")
    held = {row[0][0] for part in (parts.choice, parts.score) for row in part.texts.rows()}
    assert len(held & known) <= 5  # sentences that the treebank itself holds twice


def test_missing_data_are_named(tmp_path: Any) -> None:
    with pytest.raises(PodiumError, match=r"ids-sst-train\.csv: no such file; the stability benchmark needs"):
        parts_of("sentiment", tmp_path)


def test_every_strategy_is_sound_and_all_seeds_are_asked_for() -> None:
    for name, strategy in STRATEGIES.items():
        asked = strategy.settings(RATES["middle"], 7)
        assert asked.schedule.rate == RATES["middle"], name
        assert set(vars(asked.seeds).values()) == {7}
        assert STRATEGIES[strategy.against].changed.get("epochs") == strategy.changed.get("epochs") or name == "patient"
    for study in STUDIES.values():
        cells = study.cells
        assert len(cells) == len(set(cells)) == len({each.name for each in cells})
        assert all(each._replace(strategy=STRATEGIES[each.strategy].against) in cells for each in cells)
    guard, attacks = (set(STUDIES[name].cells) for name in ("guard", "attacks"))
    for name in ("plain", "guard"):
        for rate in RATES:
            for data in SETS:
                assert {Asked(name, data, rate, seed) for seed in SEEDS} <= guard
    assert {Asked("deni", "sentiment", "low", seed) for seed in SEEDS} <= attacks
    assert {Asked("ten epochs", "sentiment", "low", seed) for seed in POOL} <= attacks
    gentle = set(STUDIES["gentle"].cells)
    assert {each.strategy for each in guard | attacks | gentle} == set(STRATEGIES)
    assert not {each.strategy for each in guard} & {*ATTACKS, *GENTLE, "deni"}
    assert gentle == {Asked(name, "sentiment", "high", s) for name in ("plain", "guard", *GENTLE) for s in SEEDS}


def test_a_constant_answer_has_failed_by_both_definitions() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    constant = scores(labels, np.tile([0.5, 0.3, 0.2], (100, 1)))
    assert constant["failed"] == {"majority": True, "chance": True} and constant["accuracy"] == 0.5
    perfect = scores(labels, np.eye(3)[labels])
    assert perfect["failed"] == {"majority": False, "chance": False} and perfect["f1"] == 1.0


@given(st.integers(0, 99), st.floats(0.1, 10.0), st.integers(5, 25))
@quick
def test_the_interval_holds_the_spread_and_scales_with_it(seed: int, scale: float, runs: int) -> None:
    values = np.random.default_rng(seed).normal(size=runs)
    low, high = interval(values)
    assert 0 <= low <= values.std(ddof=1) * 1.05 and high >= low
    assert np.allclose(interval(values * scale), (low * scale, high * scale))


@given(st.integers(0, 99), st.floats(0.1, 10.0))
@quick
def test_the_ratio_of_a_scaled_copy_is_the_scale(seed: int, scale: float) -> None:
    values = np.random.default_rng(seed).normal(size=25)
    found = ratio(values * scale, values)
    assert np.allclose([found["ratio"], found["low"], found["high"]], scale)


def test_equal_strategies_differ_in_nothing() -> None:
    values = np.random.default_rng(0).normal(size=25)
    assert p_values(values, values.copy(), 3, 3) == {"spread": 1.0, "mean": 1.0, "failures": 1.0}


def test_fisher_gives_the_published_examples() -> None:
    values = np.arange(25.0)
    assert p_values(values, values[::-1], 6, 0)["failures"] == pytest.approx(0.022, abs=1e-3)
    assert p_values(values[:20], values[19::-1], 5, 0)["failures"] == pytest.approx(0.047, abs=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@quick
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p: list[float]) -> None:
    given = {str(number): value for number, value in enumerate(p)}
    found = holm(given)
    for name, value in given.items():
        assert value <= found[name] <= min(1.0, value * len(p)) + 1e-12
    order = sorted(given, key=lambda name: given[name])
    assert all(found[one] <= found[other] for one, other in pairwise(order))


def test_halves_of_one_pool_are_rarely_told_apart() -> None:
    draw = np.random.default_rng(1)
    found = null_check(draw.normal(size=24), draw.random(24) < 0.3)
    assert all(0 <= share <= 0.08 for share in found.values())
    assert found["mean"] > 0.01


def test_the_picture_is_sound_and_has_a_dot_for_each_seed(tmp_path: Path) -> None:
    cell = {"rate": "high", "f1": [0.1, 0.2, 0.15], "failed_runs": [True, False, False]}
    cells = [cell | {"data": data, "strategy": "a < b"} for data in ("one", "two")]
    draw({"rates": {"high": 3e-3}, "cells": cells}, tmp_path / "x.svg")
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    dots = [each for each in root.iter() if each.tag.endswith("circle")]
    assert [each.get("class") for each in dots] == ["failed", "seed", "seed"] * 2
    heights = [float(each.get("y", 0)) for each in root if each.tag.endswith("svg")]
    assert len(heights) == 2 and heights[0] < heights[1]


def test_disagreement_is_the_share_of_rows_between_pairs() -> None:
    answers = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]])
    assert disagreement(np.eye(2)[answers]) == pytest.approx((0.25 + 0.25 + 0.5) / 3)


@pytest.mark.parametrize(("key", "told"), [({"disagreement": 0.25}, "75%"), ({"disagreement": None}, "not measured")])
def test_agreement_stands_beside_the_spread_where_it_was_measured(key: dict[str, Any], told: str) -> None:
    numbers = dict.fromkeys(("mean", "sd", "min", "median", "max", "log_loss", "cost"), 0.5)
    cell = {"data": "one", "rate": "high", "strategy": "plain", "runs": 2, "sd_interval": [0.1, 0.9]}
    found = cell | numbers | {"failed": {"majority": 0, "chance": 0}}
    for each in (found | key, found | ({} if told == "not measured" else key)):  # older files lack the key
        header, _, row = tables({"rates": {"high": 1e-3}, "cells": [each], "null": {}}).splitlines()[2:5]
        columns = dict(zip(header.split(" | "), row.split(" | "), strict=True))
        assert columns["agree"] == told and columns["SD (95 %)"] == "0.500 (0.100–0.900)"
