"""A package of networks: an encoder, an NF4 and an int8 decoder on one backbone, run by the kernel."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from packaged import COMPETITION, build, kernel_error, manifest_of, mount, run_here

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import load_params
from pipeline.data.rows import field_characters
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.inference.passes import LONG
from pipeline.inference.predict import open_member
from pipeline.kernel.faults import Faults
from pipeline.kernel.request import open_rows
from pipeline.kernel.worker import Worker, WorkerSettings
from pipeline.package.bases import base_slug, base_text, find_bases
from pipeline.package.build import build_package
from pipeline.package.scene import accept
from pipeline.planning.steps import Step, load_of
from stages import diagnostics, refit, stack

TRAINING = "training: {schedule: {rate: 3.0e-3}, batches: {rows_per_step: 16, tokens_per_batch: 2048}}"
HALF, EIGHT = "{precision: fp16, long_tokens: 96}", "{precision: int8}"
PARAMS = f"""
data: {{path: data, competition: lmsys}}
demo: {{train_rows: 120, test_rows: 12, seed: 20}}
folds: {{ids: [0, 1], holdout: 0.2, seed: 5}}
threads: 1
backbones:
  none: {{source: none}}
  bert: {{source: scratch, architecture: deberta-v3, vocabulary: 400, hidden: 32, layers: 1, heads: 2}}
  llama: {{source: scratch, architecture: llama, vocabulary: 400, hidden: 32, layers: 1, heads: 2}}
members:
  words: {{kind: tabular, backbone: none, model: logistic, features: false, words: {{longest: 1, max_features: 300}}}}
  siamese: {{kind: encoder, backbone: bert, max_tokens: 64, {TRAINING}}}
  half: {{kind: encoder, backbone: bert, max_tokens: 64, input: joint, {TRAINING}, inference: {HALF}}}
  judge: {{kind: decoder, backbone: llama, max_tokens: 96, {TRAINING}, inference: {{precision: nf4, swap: true}}}}
  eight: {{kind: decoder, backbone: llama, max_tokens: 200, head: tokens, {TRAINING}, inference: {EIGHT}, folds: [1]}}
stack: {{candidates: [mean], seed: 3}}
package: {{owner: somebody, slug: some-package, title: Some package, budget_seconds: 600}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("neural")
    build(root, PARAMS)
    return root


@pytest.fixture
def mounted(run: Path, tmp_path: Path) -> Path:
    return mount(run, tmp_path / "input")


def test_the_kernel_answers_as_in_training(run: Path, mounted: Path, package: Path, tmp_path: Path) -> None:
    """With the bases in datasets of their own, as they are on Kaggle; the other tests have them in their places."""
    files = manifest_of(package)["files"]
    assert set(find_bases(files)) == {"pretrained/llama-nf4", "pretrained/llama-int8"}
    for base, digest in find_bases(files).items():
        apart = mounted / base_slug(digest)
        apart.mkdir()
        (apart / "BASE.json").write_text(base_text(base, files))
        shutil.move(package / base, apart / "base")
    done = run_here(mounted, tmp_path / "working")
    assert done.returncode == 0, done.stdout
    rehearsal = json.loads((tmp_path / "working" / "rehearsal.json").read_text())
    parity = {name: found["max"] for name, found in rehearsal["parity"].items()}
    assert set(parity) == {"words", "siamese", "half", "judge", "eight"}
    assert rehearsal["parity_max_abs_diff"] == max(parity["words"], parity["siamese"]) <= 1e-4
    assert parity["judge"] <= 1e-4  # in fp32 on a CPU
    assert parity["half"] <= 2e-2
    assert parity["eight"] <= 2e-2


def test_a_base_stands_once_and_quantised_whatever_the_folds(run: Path) -> None:
    package = run / "artifacts" / "package"
    pretrained = package / "pretrained"
    assert sorted(path.name for path in pretrained.iterdir()) == ["bert", "llama", "llama-int8", "llama-nf4"]
    assert not list((pretrained / "bert").glob("*.safetensors"))  # the fold models bring all weights
    assert [path.name for path in (pretrained / "llama").iterdir()] == ["backbone.json"]
    full = run / "artifacts" / "backbones" / "llama" / "model.safetensors"
    assert (pretrained / "llama-nf4" / "model.safetensors").stat().st_size < 0.8 * full.stat().st_size
    half, whole = (package / "members" / name / "fold0" / "model.safetensors" for name in ("half", "siamese"))
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    assert not [path for path in package.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pickle")]
    eight = manifest_of(package)["members"]["eight"]
    assert {key: eight[key] for key in ("kind", "folds", "precision")} == {
        "kind": "decoder",
        "folds": [1],
        "precision": "int8",
    }


CUT_OFF = {
    "members/siamese/fold0/model.safetensors": "siamese fold 0",
    "members/judge/fold1/adapter/adapter_model.safetensors": "judge fold 1",
    "pretrained/llama-int8/model.safetensors": "eight fold 1",
}
"""Weights in the package -> the fold models that need them."""


@pytest.mark.slow
def test_a_file_that_is_cut_off_costs_its_fold_models_alone(mounted: Path, package: Path, tmp_path: Path) -> None:
    for name in CUT_OFF:
        (package / name).write_bytes((package / name).read_bytes()[:1000])
    accept(package)
    done = run_here(mounted, tmp_path / "working", rerun=True)
    assert done.returncode == 0, done.stdout
    dropped = [line for line in done.stdout.splitlines() if "dropped" in line]
    assert sorted(line.split(": ")[1] for line in dropped) == sorted(CUT_OFF.values()), dropped
    assert (tmp_path / "working" / "submission.csv").is_file()
    line = kernel_error(run_here(mounted, tmp_path / "rehearsal"))
    assert sum(each in line for each in ("siamese/fold0", "judge/fold1", "pretrained/llama-int8")) == 1, line


@pytest.mark.parametrize(
    ("file", "step"),
    [
        ("pretrained/llama-nf4/model.safetensors", Step("judge", 0)),
        ("pretrained/llama/backbone.json", Step("eight", 1)),
        ("pretrained/bert/tokenizer.json", Step("siamese", 1)),
    ],
)
def test_what_a_fold_model_shares_with_others_must_be_whole(
    mounted: Path, package: Path, tmp_path: Path, file: str, step: Step
) -> None:
    """A rerun goes on with files that the hashes call broken, but never asks a network that is made of one."""
    files = mounted / COMPETITION

    def said(broken: dict[str, str]) -> dict:
        settings = WorkerSettings(str(package), str(files), True, broken, str(tmp_path), "cpu", False, Faults({}))
        return next(Worker(open_rows(package, files, True), settings).answer(step, np.arange(1)))

    assert said({file: "expected sha256 1, found 2"})["failed"] == "broken"
    assert "opened" in said({"pretrained/other/model.safetensors": "expected sha256 1, found 2"})


def test_another_backbone_under_the_same_name_is_refused(mounted: Path, tmp_path: Path) -> None:
    facts = mounted / "datasets" / "somebody" / "some-package" / "pretrained" / "bert" / "backbone.json"
    write_json(facts, read_json(facts) | {"sha256": "0" * 64})
    accept(facts.parents[2])
    assert "trained on another backbone bert" in kernel_error(run_here(mounted, tmp_path / "working"))


def test_a_collapsed_member_is_left_out_or_ends_the_build(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    file = Path("artifacts/receipts/siamese-fold1.json")
    receipt = read_json(file)
    write_json(file, receipt | {"training": receipt["training"] | {"collapsed": True}})
    stack.main()
    cv = read_json(Path("metrics/cv.json"))
    assert cv["dropped"] == {"siamese": "1 of 2 fold models are no better than the prior"}
    assert cv["members"]["siamese"]["collapsed"] == 1
    assert any("LEFT OUT" in line for line in cv["warnings"])
    rungs = read_json(Path("artifacts/stack/ladder.json"))["rungs"]
    assert not any("siamese" in rung["members"] for rung in rungs)
    diagnostics.main()
    told = read_json(Path("artifacts/diagnostics.json"))
    assert [row["member"] for row in told["marginal"]] == ["words", "half", "judge", "eight"]
    params = Path("params.yaml")
    params.write_text(params.read_text() + "guard: {on_collapse: fail}\n")
    with pytest.raises(PodiumError, match=r"siamese: fold models \[1\] are no better than the prior"):
        stack.main()


def test_no_row_that_is_cut_is_passed_over_by_the_long_pass(run: Path, lmsys: Competition) -> None:
    package = Artifacts(run / "artifacts" / "package")
    rows = pl.read_parquet(package.parity_file)
    half = manifest_of(package.root)["members"]["half"]
    half["work"]["characters_per_token"] *= 3  # texts of other words than the average
    load = load_of(half, LONG, field_characters(rows, lmsys.kind.fields), lmsys.kind)
    with closing(open_member(package.model("half", 0), package, lmsys)) as member:
        cut = np.isfinite(member.predict(rows, LONG)).all(axis=1)
    assert not (cut & ~load.eligible).any()
    half["work"]["shortest_cut"] = None
    estimated = load_of(half, LONG, field_characters(rows, lmsys.kind.fields), lmsys.kind).eligible
    assert (cut & ~estimated).any()


def test_truncation_stands_in_the_metrics(run: Path) -> None:
    members = read_json(run / "metrics" / "cv.json")["members"]
    assert set(members["siamese"]["truncation"]) == {"prompt", "a", "b"}
    assert members["siamese"]["truncation"]["a"]["rows"] > 0
    assert "truncation" not in members["words"]


@pytest.mark.slow
def test_networks_are_refitted_from_a_backbone_that_the_package_brings(run: Path, tmp_path: Path) -> None:
    root = shutil.copytree(run, tmp_path / "run", symlinks=True)
    params = root / "params.yaml"
    params.write_text(params.read_text() + "refit: true\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        # Networks as small as these learn nothing.
        patch.setattr("pipeline.members.refit.collapsed", lambda split, answers, competition: False)
        for member in ("siamese", "judge"):
            refit.main(member)
        build_package(Artifacts(), load_params().package, [])
    members = manifest_of(root / "artifacts" / "package")["members"]
    assert {name: member["folds"] for name, member in members.items()} == {
        "words": [0, 1],
        "siamese": [2, 0, 1],
        "half": [0, 1],
        "judge": [2, 0, 1],
        "eight": [1],
    }
