"""The ladder of learning rates: every kind of network climbs it on the same rows, and what it suggests has a reason."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import ready
from support import ROOT, preference_rows

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.experiments.rates import FACTORS, Trial, climb, ladder_of, suggestion, table
from pipeline.experiments.tries import try_member
from pipeline.report.rate_plot import rate_plot
from pipeline.validation import validated

TRAINING = {"schedule": {"rate": 1.0e-3}, "batches": {"rows_per_step": 8, "tokens_per_batch": 1024}}
NETWORK = {"max_tokens": 64, "training": TRAINING}
MEMBERS: dict[str, dict[str, Any]] = {
    "words": {"kind": "tabular", "backbone": "none", "model": "logistic", "words": {"longest": 1, "max_features": 500}},
    "encoder": NETWORK | {"kind": "encoder", "backbone": "bert", "head": "equivariant"}
    | {"training": TRAINING | {"schedule": {"reference": {"rate": 5.0e-4, "rows": 2}}}},
    "judge": NETWORK | {"kind": "decoder", "backbone": "llama", "inference": {"precision": "nf4"}},
    "tokens": NETWORK | {"kind": "decoder", "backbone": "llama", "head": "tokens", "max_tokens": 200}
    | {"training": TRAINING | {"head_rate": 2.0e-3}, "inference": {"precision": "int8"}},
    "asked": NETWORK | {"kind": "decoder", "backbone": "llama", "head": "tokens", "max_tokens": 200}
    | {"training": TRAINING | {"epochs": 0}, "inference": {"precision": "nf4"}},
    "friend": {"kind": "external", "backbone": "none", "file": "external/friend.csv"},
}  # fmt: skip


@pytest.fixture(scope="module")
def params() -> Params:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["members"] = MEMBERS
    value["folds"] |= {"ids": [0, 1]}
    value["guard"] = {"max_attempts": 1}  # a try would otherwise be restarted at half the rate
    return validated(Params, value, "params.yaml")


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    monkeypatch.chdir(tmp_path)
    return Artifacts(ready(tmp_path, preference_rows(40), lmsys, [n % 2 for n in range(40)], backbones))


@pytest.mark.parametrize("name", ["encoder", pytest.param("judge", marks=pytest.mark.slow), "tokens"])
def test_every_network_climbs_and_its_own_rate_gives_what_a_try_gives(
    name: str, params: Params, artifacts: Artifacts, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(artifacts.root.rglob("*"))
    rates = ladder_of(name, params, "1e-4 1e-3")
    low, own = climb(name, 0, 12, rates, params, artifacts)
    assert capsys.readouterr().out.count(f"{name}: trains in") == 1  # rows are shown once
    assert (low.rate, own.rate) == (1e-4, 1e-3)
    assert low.losses is not None and own.losses is not None
    assert len(low.losses) == 12 and not np.array_equal(low.losses, own.losses)
    assert low.constant == own.constant
    assert round(own.score, 5) == try_member(name, 0, 12, params, [], artifacts).score
    assert sorted(artifacts.root.rglob("*")) == before


def test_a_rate_that_breaks_a_network_is_told_and_the_ladder_goes_on(params: Params, artifacts: Artifacts) -> None:
    for attempts in (0, 3):
        asked = replace(params, guard=replace(params.guard, max_attempts=attempts))
        broken, sound = climb("encoder", 0, 12, [1e38, 1e-3], asked, artifacts)
        assert broken.stopped is not None and "not finite" in broken.stopped and broken.losses is None
        assert sound.losses is not None
        assert suggestion([broken, sound]).rate != 1e38


def test_what_has_no_rate_is_one_line(params: Params) -> None:
    for name, expected in {
        "word": r'MEMBER: no member "word" in params\.yaml \(did you mean "words"\?\)',
        "words": "MEMBER: words is tabular and has no learning rate; name an encoder or a decoder",
        "friend": "MEMBER: friend is external and has no learning rate",
        "asked": r"MEMBER: asked learns nothing \(training\.epochs 0\): there is no rate to look for",
    }.items():
        with pytest.raises(PodiumError, match=expected):
            ladder_of(name, params, "")
    for asked in ("1e-5", "1e-5 x", "0 1e-5", "-1 1", "1e-5 inf", "1e-5 nan"):
        with pytest.raises(PodiumError, match='RATES: expected two rates or more, such as "1e-5 3e-5 1e-4", found'):
            ladder_of("encoder", params, asked)


def test_the_ladder_lies_around_the_members_own_rate(params: Params) -> None:
    # 1e-3 for 8 rows, from 5e-4 for 2 by the square root
    rates = ladder_of("encoder", params, " ")
    assert rates == sorted(rates) == [1e-3 * factor for factor in FACTORS] and 1e-3 in rates
    assert ladder_of("encoder", params, "1e-3 1e-5 1e-5") == [1e-5, 1e-3]


def trial(rate: float, mean: float, stopped: str | None = None, spread: float = 0.1, rows: int = 100) -> Trial:
    noise = np.random.default_rng(round(-math.log10(rate) * 100)).normal(size=rows)
    return Trial(rate, mean + spread * (noise - noise.mean()) / noise.std(), 1.0, mean, 1.0, stopped)


BROKEN = Trial(10.0, None, math.nan, math.nan, math.nan, "the loss is not finite")


def test_the_best_is_suggested_where_it_is_certainly_better() -> None:
    said = suggestion([trial(1e-5, 0.9), trial(1e-4, 0.5), trial(1e-3, 0.8), BROKEN])
    assert said.rate == 1e-4 and said.reason == "it has the lowest loss"


def test_a_lower_rate_is_taken_where_nothing_is_certain() -> None:
    said = suggestion([trial(1e-6, 0.9), trial(1e-5, 0.501), trial(1e-4, 0.5), trial(1e-3, 0.8)])
    assert said.rate == 1e-5 and said.reason == "no higher rate is certainly better; the lowest loss is that of 1.0e-04"


def test_an_end_of_the_ladder_is_told() -> None:
    falling = [trial(1e-5, 0.9), trial(1e-4, 0.5)]
    assert "the best is the highest that was tried: try others beyond it" in suggestion(falling).reason
    assert "the best is the lowest that was tried" in suggestion([trial(1e-5, 0.4), trial(1e-4, 0.8)]).reason


def test_what_failed_or_knows_nothing_is_not_suggested() -> None:
    assert suggestion([trial(1e-5, 0.9), trial(1e-4, 0.2, "every row gets the same class")]).rate == 1e-5
    for trials in ([BROKEN], [trial(1e-5, 1.2), BROKEN], [trial(1e-5, 0.5, "at its end the loss is 0.001 better")]):
        said = suggestion(trials)
        assert said.rate is None and "give it more ROWS, or other RATES" in said.reason


means = st.lists(st.floats(0.1, 1.5), min_size=2, max_size=6)


@given(means, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_suggestion_is_sound_and_never_above_the_best(losses: list[float], failed: int) -> None:
    trials = [
        trial(10.0 ** (number - 6), loss, "no" if number == failed else None) for number, loss in enumerate(losses)
    ]
    sound = [each for each in trials if not each.stopped and each.loss < each.constant]
    said = suggestion(trials)
    assert (said.rate is None) == (not sound)
    if sound:
        assert said.rate in [each.rate for each in sound]
        assert said.rate <= min(sound, key=lambda each: each.loss).rate


@given(means, st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_picture_is_sound_and_holds_every_rate_in_its_frame(losses: list[float], broken: bool) -> None:
    trials = [trial(10.0 ** (number - 6), loss) for number, loss in enumerate(losses)] + ([BROKEN] if broken else [])
    said = suggestion(trials)
    points = [(each.rate, each.loss, each.error, each.stopped is not None) for each in trials]
    root = ElementTree.fromstring(str(rate_plot("a < b & c", points, 1.0, said.rate)))
    dots = [each for each in root.iter() if each.tag.endswith("circle")]
    assert len(dots) == len(trials) + (said.rate is not None)
    wide, tall = map(float, root.get("viewBox", "").split()[2:])
    assert all(0 <= float(dot.get("cx", -1)) <= wide and 0 <= float(dot.get("cy", -1)) <= tall for dot in dots)
    places = [float(dot.get("cx", 0)) for dot in dots if dot.get("class") != "kept"]
    assert places == sorted(places)


def test_the_table_has_a_line_per_rung_and_marks_one() -> None:
    lines = table([trial(1e-5, 0.9), trial(1e-4, 0.5), BROKEN], 1e-4).splitlines()
    assert lines[0].split() == ["rate", "loss", "error", "score", "seconds"]
    assert lines[1].split() == ["1.0e-05", "0.9000", "0.0100", "0.90000", "1"]
    assert [line.endswith("<- suggested") for line in lines] == [False, False, True, False]
    assert lines[3].split()[:5] == ["1.0e+01", "-", "-", "-", "-"] and lines[3].endswith("the loss is not finite")
