"""Every feature beside every other, on tiny networks, from the start to the kernel's answers.

A cell is one value of each factor; the runs together hold every pair of values that can go together. What cannot is
said once, in `allowed`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pytest
import yaml
from outcomes import laid_out
from packaged import build_prepared, mount, run_here
from support import ROOT, write_external

from pipeline.artifacts import Artifacts
from pipeline.check import Plan, look
from pipeline.competitions.submission import TOP
from pipeline.competitions.task import Competition, Label
from pipeline.config import load_params, member_settings
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.ingest.prepare import prepare
from pipeline.kernel.submission import validate_submission
from pipeline.members.average import averageable
from pipeline.settings.member import MemberSettings

Cell = tuple[tuple[str, Any], ...]
RUN: dict[str, tuple[Any, ...]] = {
    "inputs": ("text", "pair", "preference", "choices"),
    "metric": ("log_loss", "labels"),
    "holdout": (0.2, 0.0),
    "refit": (False, True),
    "averaged": (False, True),
    "partial": (0, 1),
}
MEMBER: dict[str, tuple[Any, ...]] = {
    "kind": ("words", "trees", "file", "encoder", "decoder"),
    "precision": ("fp32", "fp16", "bf16", "nf4", "int8"),
    "input": ("siamese", "joint"),
    "head": ("plain", "equivariant", "tokens"),
    "swap": (False, True),
    "long": (False, True),
    "average": ("none", "voters", "ema", "runs"),
    "folds": ("all", "partial"),
}
BASE = {"name": "small-competition", "id": "id"}
TEXTS = {
    "text": {"text": "text"},
    "pair": {"a": "a", "b": "b"},
    "preference": {"prompt": "p", "a": "a", "b": "b"},
    "choices": {"question": "q", "A": "A", "B": "B", "C": "C"},
}
DECIDED = {"metric": "accuracy", "answers": {"answer": "label"}}
MEMBERS = 7
"""A run has no more of them."""
MOST_RUNS = 12
"""As many as every pair of values may take."""


def allowed(cell: dict[str, Any]) -> bool:
    """Whether Podium takes the values of a cell together; it may hold some of the factors only."""
    network = cell["kind"] in ("encoder", "decoder")
    if not network:
        usual = {name: values[0] for name, values in MEMBER.items() if name not in ("kind", "folds")}
        return all(cell[name] == value for name, value in usual.items())
    sides = cell["inputs"] in ("pair", "preference")
    if cell["kind"] == "encoder" and cell["precision"] in ("nf4", "int8"):
        return False
    if cell["head"] == "equivariant" and (cell["input"] == "joint" or cell["swap"]):
        return False
    if cell["head"] == "tokens" and (cell["kind"] != "decoder" or cell["input"] == "siamese"):
        return False
    return sides or not cell["swap"]


def pairs(cell: dict[str, Any]) -> set[Cell]:
    """All pairs of values of a cell."""
    return set(itertools.combinations(sorted(cell.items(), key=lambda each: each[0]), 2))


@cache
def runs() -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Settings of runs and of their members: together every pair of values that can go together."""
    draw = random.Random(3)
    settings = [dict(zip(RUN, values, strict=True)) for values in itertools.product(*RUN.values())]
    settings = [each for each in settings if each["holdout"] or not each["averaged"]]
    members = [dict(zip(MEMBER, values, strict=True)) for values in itertools.product(*MEMBER.values())]
    possible = {each: [m for m in members if allowed(settings[each] | m)] for each in range(len(settings))}
    missing = set().union(*(pairs(settings[each] | m) for each, found in possible.items() for m in found))
    planned: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    while missing:
        # The run that has most of what no other has yet, and members for it as long as they bring something.
        best, chosen = -1, (settings[0], [])
        for place in draw.sample(range(len(settings)), len(settings)):
            left, found = set(missing), []
            for _ in range(MEMBERS):
                drawn = draw.sample(possible[place], min(60, len(possible[place])))
                member = max(drawn, key=lambda each: len(left & pairs(settings[place] | each)))
                if not left & pairs(settings[place] | member):
                    break
                left -= pairs(settings[place] | member)
                found.append(member)
            if len(missing) - len(left) > best:
                best, chosen = len(missing) - len(left), (settings[place], found)
        planned.append(chosen)
        for member in chosen[1]:
            missing -= pairs(chosen[0] | member)
    return planned


def competition_of(cell: dict[str, Any]) -> Competition:
    """A small competition of the cell's inputs and metric."""
    inputs, choices = cell["inputs"], cell["inputs"] == "choices"
    given: dict[str, Any] = BASE | {"task": inputs, "texts": TEXTS[inputs], "symmetric": inputs == "pair"}
    given |= {"label": Label("answer"), "metric": "log_loss"}
    if choices:
        given |= {"outcome": "choice", "options": ("A", "B", "C")}
    else:
        given |= {"classes": ("model_a", "model_b", "tie") if inputs == "preference" else ("x", "y")}
    if cell["metric"] == "labels":
        given |= {
            "metric": "map@3" if choices else "accuracy",
            "answers": {"answer": TOP + "3" if choices else "label"},
        }
    return Competition(**given)


def settings_of(member: dict[str, Any], partial: int = 0) -> dict[str, Any]:
    """A member's section of params.yaml; `partial` is the fold of those that train one alone."""
    kind = member["kind"]
    folds = {"all": {}, "partial": {"folds": [partial]}}[member["folds"]]
    if kind == "file":
        return {"kind": "external", "backbone": "none", "file": "external/friend.csv"} | folds
    if kind in ("words", "trees"):
        words = {"longest": 1, "max_features": 200, "min_df": 1}
        model: dict[str, Any] = {"model": "logistic"}
        if kind == "trees":
            model = {"model": "lightgbm", "components": 8, "boosting": {"max_trees": 8}}
        return {"kind": "tabular", "backbone": "none", "words": words} | model | folds
    average = {"none": {}, "voters": {"deni": {"children": 2}}, "ema": {"ema": 0.2}, "runs": {"runs": 2}}
    training = {"schedule": {"rate": 3.0e-3}, "batches": {"rows_per_step": 16, "tokens_per_batch": 1024}}
    inference = {"precision": member["precision"], "swap": member["swap"]}
    room = 24 if member["head"] != "tokens" else 200  # a prompt comes on top
    if member["long"]:
        inference["long_tokens"] = room + 24
    return {
        "kind": kind,
        "backbone": "bert" if kind == "encoder" else "llama",
        "max_tokens": room,
        "input": member["input"],
        "head": member["head"],
        "training": training | average[member["average"]],
        "inference": inference,
    } | folds


def params_of(settings: dict[str, Any], members: Iterable[dict[str, Any]]) -> str:
    """params.yaml of a run."""
    tiny = {"source": "scratch", "vocabulary": 300, "hidden": 32, "layers": 1, "heads": 2}
    named = {
        f"{member['kind']}_{place}": settings_of(member, settings["partial"]) for place, member in enumerate(members)
    }
    shapes = {"bert": "deberta-v3", "llama": "llama"}
    used = {each["backbone"] for each in named.values()} & set(shapes)
    return yaml.safe_dump(
        {
            "data": {"path": "data", "competition": "lmsys"},
            "demo": {"train_rows": 260, "test_rows": 24, "seed": 20},
            "folds": {"ids": [0, 1], "holdout": settings["holdout"], "seed": 5},
            "threads": 1,
            "backbones": {"none": {"source": "none"}} | {name: tiny | {"architecture": shapes[name]} for name in used},
            "members": named,
            "stack": {"candidates": ["mean"], "seed": 3},
            "refit": settings["refit"],
            "package": {"owner": "somebody", "slug": "some-package", "title": "Some package", "budget_seconds": 600}
            | {"average": settings["averaged"]},
        }
    )


def test_what_is_not_allowed_is_refused_before_anything_trains() -> None:
    usual = {name: values[0] for name, values in MEMBER.items()} | {"kind": "encoder"}
    equivariant = {"head": "equivariant"}
    for wrong in ({"precision": "nf4"}, equivariant | {"input": "joint"}, equivariant | {"swap": True}):
        with pytest.raises(PodiumError):
            member_settings(settings_of(usual | wrong))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(MOST_RUNS))
def test_from_the_start_to_the_kernels_answers(number: int, tmp_path: Path) -> None:
    planned = runs()
    assert len(planned) <= MOST_RUNS
    if number >= len(planned):
        pytest.skip("every pair is in an earlier run")
    settings, members = planned[number]
    competition, root = competition_of(settings), tmp_path / "run"
    root.mkdir()
    (root / "params.yaml").write_text(params_of(settings, members))
    laid_out(competition, root / "data", 72, 6)
    artifacts = Artifacts(root / "artifacts")
    prepare(root / "data", competition, artifacts.competition_folder)
    train = pl.read_parquet(artifacts.train_file).select("id", "label")
    test = pl.read_parquet(artifacts.test_file).select("id", pl.lit(0, pl.Int16).alias("label"))
    write_external(root, "friend", pl.concat([train, test]), competition, sharpness=1.0)
    for name in (".venv", "requirements.lock"):  # where the plan's check looks for the kernel's wheels
        (root / name).symlink_to(ROOT / name)
    with chdir(root):
        assert look(Plan(load_params(), competition, Artifacts(), frozenset({"prepare"}))).errors == []
    # Networks as small as these learn nothing, which here is no reason to leave them out.
    # Nor is that one of the averages' folds.
    untold = mock.patch("pipeline.package.averages.pays", lambda *_: True)
    with mock.patch("pipeline.members.refit.collapsed", lambda *_: False), untold:
        build_prepared(root)
    mounted = mount(root, tmp_path / "input", files="small-competition")
    sample = tmp_path / "input" / "small-competition" / "sample_submission.csv"
    names = list(read_json(artifacts.package / "MANIFEST.json")["members"])
    assert len(names) == len(members)
    for rerun in (False, True):
        done = run_here(mounted, tmp_path / f"working-{rerun}", rerun=rerun)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not [line for line in done.stdout.splitlines() if line.startswith(("problem:", "error:"))], done.stdout
        assert f"rows per rung: {'+'.join(names)} 6" in done.stdout
        assert validate_submission(tmp_path / f"working-{rerun}" / "submission.csv", sample, competition) == 6
    plan = read_json(tmp_path / "working-False" / "rehearsal.json")["plan"]
    params = load_params(root / "params.yaml")
    assert {step["status"] for step in plan} == {"done"}
    for name in names:
        member = members[int(name.rpartition("_")[2])]
        passes = {step["pass"] for step in plan if step["member"] == name}
        assert ("swap" in passes) == member["swap"]
        folds = {step["fold"] for step in plan if step["member"] == name}
        trained = {0, 1} if member["folds"] == "all" else {settings["partial"]}
        refitted = {2} if settings["refit"] and member["kind"] != "file" else set()
        averaged = {3} if settings["averaged"] and can_be_averaged(params.members[name], name, artifacts) else set()
        assert folds == trained | refitted | averaged


def can_be_averaged(member: MemberSettings, name: str, artifacts: Artifacts) -> bool:
    """Whether it has two fold models or more with weights, of which none was begun anew or has collapsed."""
    try:
        return bool(averageable(name, member, [0, 1], artifacts))
    except PodiumError:
        return False
