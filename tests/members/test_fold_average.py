"""Fold models averaged into one: the mean of their weights, measured on rows that none has learned, or refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from fold_models import FOLDS, ROWS, asked, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import decoder, encoder, ready
from safetensors.torch import load_file
from support import ROOT, preference_rows

from pipeline.artifacts import HOLDOUT, Artifacts
from pipeline.competitions.family import Categorical, average
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.experiments.average import compare, greedy, table
from pipeline.files import read_json, write_json, write_parquet
from pipeline.inference.predict import predict_member
from pipeline.members.average import average_models, averageable
from pipeline.package.averages import averaged
from pipeline.settings.tabular import Tabular
from pipeline.settings.techniques import Deni
from pipeline.validation import validated

MEMBERS = {
    "encoder": encoder({"epochs": 2}, inference={"precision": "fp16"}),
    "decoder": decoder({"epochs": 2}, "nf4"),
    "tokens": decoder({"epochs": 2}, "int8", head="tokens", max_tokens=200),
}
FAMILY = Categorical(3)
PARTS = ("members", "oof", "receipts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, backbones: Path, lmsys: Competition) -> Iterator[Path]:
    yield ready(tmp_path_factory.mktemp("average"), preference_rows(ROWS), lmsys, FOLDS, backbones)


@pytest.fixture
def artifacts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    monkeypatch.chdir(folder.parent)
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    return Artifacts(folder)


def of(member: Any) -> Params:
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    value["members"] = {"words": value["members"]["words"]}
    value["folds"] |= {"ids": [0, 1]}
    params = validated(Params, value, "params.yaml")
    return replace(params, members=params.members | {"mine": member})


def both(artifacts: Artifacts, kind: str, competition: Competition) -> list[Path]:
    """Two fold models, which count as learned at the first attempt whatever so few rows have taught them."""
    kept = artifacts.root.parent / f"kept-{kind}"
    if not kept.exists():
        for fold in (0, 1):
            trained(artifacts, MEMBERS[kind], competition, fold)
            first = read_json(artifacts.receipt("mine", fold))["training"]["attempts"][:1]
            change(artifacts, fold, collapsed=False, attempts=first)
        for part in PARTS:
            shutil.copytree(artifacts.root / part, kept / part)
    for part in PARTS:
        shutil.copytree(kept / part, artifacts.root / part, dirs_exist_ok=True)
    return [artifacts.model("mine", fold) for fold in (0, 1)]


def change(artifacts: Artifacts, fold: int, **changed: Any) -> None:
    receipt = read_json(artifacts.receipt("mine", fold))
    write_json(artifacts.receipt("mine", fold), receipt | {"training": receipt["training"] | changed})


@pytest.mark.parametrize("kind", ["encoder", "decoder", pytest.param("tokens", marks=pytest.mark.slow)])
def test_the_average_is_measured_beside_the_mean_on_rows_that_none_has_learned(
    kind: str, artifacts: Artifacts, lmsys: Competition, tmp_path: Path
) -> None:
    folders = both(artifacts, kind, lmsys)
    before = sorted(artifacts.root.rglob("*.safetensors"))
    found = compare("mine", of(MEMBERS[kind]), artifacts)
    names = ["fold 0", "fold 1", "mean of their answers", "average of their weights", "greedy soup of them"]
    assert [each.name for each in found.lines] == names and [each.passes for each in found.lines] == [1, 1, 2, 1, 1]
    held, labels = asked(artifacts, HOLDOUT), asked(artifacts, HOLDOUT)["label"].to_numpy()
    alone = [predict_member(each, artifacts, held, lmsys) for each in folders]
    average_models(folders, tmp_path / "mean")
    whole = predict_member(tmp_path / "mean", artifacts, held, lmsys)
    for line, means in zip(found.lines, [*alone, average(lmsys.family, alone), whole], strict=False):
        assert np.allclose(line.losses, lmsys.family.losses(labels, means), atol=1e-6), line.name
    assert found.error(found.mean) == 0.0 and found.constant > 0
    assert sorted(artifacts.root.rglob("*.safetensors")) == before
    lines = table(found).splitlines()
    assert len(lines) == 6 and lines[4].split()[4] == "1" and lines[3].split()[4] == "2"


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_every_tensor_is_the_mean_in_its_own_precision(
    kind: str, artifacts: Artifacts, lmsys: Competition, tmp_path: Path
) -> None:
    folders = both(artifacts, kind, lmsys)
    average_models(folders, tmp_path / "mean")
    average_models([folders[0]] * 3, tmp_path / "same")
    files = [file.relative_to(folders[0]) for file in folders[0].rglob("*.safetensors")]
    assert files
    moved = 0
    for file in files:
        one, other, mean, same = (
            load_file(folder / file) for folder in (*folders, tmp_path / "mean", tmp_path / "same")
        )
        for name, each in one.items():
            assert mean[name].dtype == each.dtype
            wanted = ((each.float() + other[name].float()) / 2).to(each.dtype)
            assert np.allclose(mean[name].float(), wanted.float(), atol=1e-3 if each.element_size() == 2 else 1e-6)
            assert (same[name] == each).all()
            moved += int(not (mean[name] == each).all())
    assert moved
    held = asked(artifacts, HOLDOUT)
    again = predict_member(tmp_path / "same", artifacts, held, lmsys)
    assert np.array_equal(again, predict_member(folders[0], artifacts, held, lmsys))


def test_what_cannot_be_averaged_is_one_line(artifacts: Artifacts, lmsys: Competition) -> None:
    member = MEMBERS["encoder"]
    params = of(member)

    def refused(expected: str, name: str = "mine", given: Params = params) -> None:
        with pytest.raises(PodiumError, match=expected):
            averageable(name, given.members[name], given.folds.ids, artifacts)

    with pytest.raises(PodiumError, match=r'MEMBER: no member "mien" in params\.yaml'):
        compare("mien", params, artifacts)
    refused("MEMBER: words is tabular and has no weights to average; name an encoder or a decoder", "words")
    assert isinstance(params.members["words"], Tabular)
    refused("MEMBER: mine has one fold model: expected 2 or more", given=of(replace(member, folds=(0,))))
    voting = replace(member, training=replace(member.training, deni=Deni()))
    refused("MEMBER: mine answers by DENI's voters, which are no single network: use answer: main", given=of(voting))
    refused(r"mine-fold0\.json: expected fold model 0 of mine, found none; run `dvc repro`")
    both(artifacts, "encoder", lmsys)
    assert list(averageable("mine", member, (0, 1), artifacts)) == [0, 1]
    other = read_json(artifacts.receipt("mine", 1))["training"]["attempts"]
    change(artifacts, 1, attempts=[*other, other[0] | {"head": 17}])
    refused(r"began with other fresh weights, for the guard restarted some \(seeds: fold 0 from 0, fold 1 from 17\)")
    change(artifacts, 1, attempts=other, collapsed=True)
    refused(r"mine-fold1\.json: fold model 1 of mine collapsed: it would spoil the average")


@pytest.mark.parametrize("kind", ["encoder", "decoder", pytest.param("tokens", marks=pytest.mark.slow)])
def test_the_package_gets_an_average_where_it_loses_less_than_a_fold_model(
    kind: str, artifacts: Artifacts, lmsys: Competition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both(artifacts, kind, lmsys)
    member, held, target = MEMBERS[kind], asked(artifacts, HOLDOUT), tmp_path / "model"
    files = [artifacts.holdout_part("mine", fold) for fold in (0, 1)]

    def fold_models_say(*chances: float) -> None:
        """Of each row's label."""
        for file, chance in zip(files, chances, strict=True):
            means = np.full((len(held), 3), (1 - chance) / 2)
            means[np.arange(len(held)), held["label"]] = chance
            columns = [pl.Series(name, means[:, c]) for c, name in enumerate(lmsys.outputs)]
            write_parquet(held.select("id").with_columns(columns), file)

    fold_models_say(0.01, 0.02)
    found = averaged("mine", member, (0, 1), artifacts, target)
    assert found and found.share == 1.0  # better than all of them together
    assert np.array_equal(found.answers.drop("id"), predict_member(target, artifacts, held, lmsys))
    assert found.answers["id"].equals(held["id"])
    assert capsys.readouterr().out.strip().endswith("asked first")
    shutil.rmtree(target)
    fold_models_say(0.98, 0.99)
    assert averaged("mine", member, (0, 1), artifacts, target) is None and not target.exists()
    assert capsys.readouterr().out.strip().endswith("left out")
    assert averaged("mine", replace(member, folds=(0,)), (0, 1), artifacts, target) is None
    assert capsys.readouterr().out.strip().endswith("mine has one fold model: expected 2 or more to average")


def test_without_a_holdout_nothing_could_be_measured(artifacts: Artifacts, lmsys: Competition) -> None:
    both(artifacts, "encoder", lmsys)
    folds = artifacts.folds()
    for places, expected in {
        0: "folds.holdout: expected a share above 0: the average has learned all other rows",
        1: "folds.holdout: expected two groups of rows or more in the holdout, found one",
    }.items():
        held = np.cumsum(FOLDS == HOLDOUT) * (FOLDS == HOLDOUT)
        kept = np.where((held > places) & (FOLDS == HOLDOUT), 1, FOLDS)
        folds.with_columns(fold=kept).write_parquet(artifacts.folds_file)
        with pytest.raises(PodiumError, match=expected):
            compare("mine", of(MEMBERS["encoder"]), artifacts)
    folds.write_parquet(artifacts.folds_file)


def test_fold_models_of_other_shapes_are_named(artifacts: Artifacts, lmsys: Competition, tmp_path: Path) -> None:
    folders = both(artifacts, "decoder", lmsys)
    (folders[1] / "head.safetensors").unlink()
    shutil.copyfile(folders[1] / "adapter/adapter_model.safetensors", folders[1] / "head.safetensors")
    with pytest.raises(PodiumError, match=r"fold1/head\.safetensors: expected the tensors of .*found others"):
        average_models(folders, tmp_path / "mean")


@given(st.integers(0, 999), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_a_greedy_soup_is_chosen_by_the_other_half(seed: int, count: int) -> None:
    """Weights are the answers here: an average of weights is that of logits."""
    draw = np.random.default_rng(seed)
    labels, groups = draw.integers(3, size=60), np.arange(60) // 2
    logits = draw.normal(size=(count, 60, 3))

    def answers(chosen: tuple[int, ...]) -> np.ndarray:
        return FAMILY.means(logits[list(chosen)].mean(axis=0))

    found = greedy(answers, count, labels, groups, FAMILY)
    assert np.isfinite(found).all()
    # Nothing that a half says changes what is chosen for itself: other labels there leave its answers as they were.
    half = np.random.default_rng(0).permutation(30)[groups] % 2 == 0
    other = np.where(half, (labels + 1) % 3, labels)
    changed = greedy(answers, count, other, groups, FAMILY)
    chances = [np.exp(-FAMILY.losses(labels, answers(tuple(chosen)))) for chosen in subsets(count)]
    assert any(np.allclose(np.exp(-found[half]), each[half]) for each in chances)
    turned = [FAMILY.losses(other, answers(tuple(chosen))) for chosen in subsets(count)]
    place = next(n for n, each in enumerate(chances) if np.allclose(np.exp(-found[half]), each[half]))
    assert np.allclose(changed[half], turned[place][half])


def subsets(count: int) -> list[list[int]]:
    return [[n for n in range(count) if bits >> n & 1] for bits in range(1, 2**count)]


def test_a_spoiled_model_stays_out_of_the_soup_and_good_ones_all_get_in() -> None:
    draw = np.random.default_rng(0)
    labels, groups = draw.integers(3, size=400), np.arange(400)
    good = [2 * np.eye(3)[labels] + draw.normal(size=(400, 3)) for _ in range(3)]
    logits = np.stack([*good, -9 * np.eye(3)[labels]])

    def losses(chosen: list[int]) -> np.ndarray:
        return FAMILY.losses(labels, FAMILY.means(logits[chosen].mean(axis=0)))

    found = greedy(lambda chosen: FAMILY.means(logits[list(chosen)].mean(axis=0)), 4, labels, groups, FAMILY)
    assert np.allclose(found, losses([0, 1, 2]))
    assert losses([0, 1, 2, 3]).mean() > found.mean()
