"""The package: whole, true to its manifest, the same on every build, and without what the kernel does not need."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from fake_gpu import pretend
from packaged import LOCK, WHEELS, manifest_of
from safetensors.torch import load_file, save_file
from support import ROOT

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition, competition_from_json
from pipeline.config import Params, load_params
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file
from pipeline.imports import libraries
from pipeline.kinds import KINDS
from pipeline.package.build import ENTRY, _pack_backbone, build_package, kernel_code
from pipeline.package.manifest import PYTHON
from pipeline.package.parity_rows import ROWS_PER_FOLD, parity_rows
from pipeline.package.wheels import find_wheels


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """artifacts/ of the finished run, which a test may change."""
    return shutil.copytree(finished / "artifacts", tmp_path / "artifacts")


@pytest.fixture(scope="session")
def params(finished: Path) -> Params:
    return load_params(finished / "params.yaml")


@pytest.fixture(scope="session")
def wheels() -> list[Path]:
    return [wheel for wheel in find_wheels(WHEELS, LOCK) if wheel.name.startswith("safetensors")]


def test_the_manifest_lists_every_file_with_its_hash(finished: Path) -> None:
    folder = finished / "artifacts/package"
    files = manifest_of(folder)["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - set(files) == {"MANIFEST.json", "dataset-metadata.json"}  # the CLI does not upload the second
    for name, entry in files.items():
        assert entry == {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_the_manifest_says_what_the_kernel_must_know(finished: Path, lmsys: Competition) -> None:
    manifest = manifest_of(finished / "artifacts/package")
    assert manifest["format"] == 1
    assert competition_from_json(manifest["competition"]) == lmsys
    both = {"folds": [0, 1], "precision": "fp32", "passes": ["first"], "gains": {}}
    assert manifest["members"] == {
        "words": {"kind": "tabular", **both},
        "shape": {"kind": "tabular", **both},
        "friend": {"kind": "external", **both},
    }
    assert [rung["name"] for rung in manifest["rungs"]] == [
        *("prior", "words", "shape", "friend"),
        *("words+shape", "words+friend", "shape+friend", "words+shape+friend"),
    ]
    assert (manifest["budget_seconds"], manifest["machine"], manifest["rehearse_rows"]) == (600, "t4x2", 0)
    assert manifest["wheels"] == [name for name in manifest["files"] if name.startswith("wheels/")] != []
    labels = pl.read_parquet(finished / "artifacts/oof/oof.parquet")["label"].to_numpy()
    shares = np.bincount(labels, minlength=3) / len(labels)
    assert list(manifest["prior"]) == list(lmsys.classes)
    assert list(manifest["prior"].values()) == pytest.approx(shares, abs=1e-6)
    assert sum(manifest["prior"].values()) == pytest.approx(1, abs=1e-12)
    assert f'requires-python = "{PYTHON}"' in (ROOT / "pyproject.toml").read_text()


def test_the_metadata_follows_kaggles_rules(finished: Path, params: Params) -> None:
    metadata = read_json(finished / "artifacts/package/dataset-metadata.json")
    assert metadata["id"] == f"{params.package.owner}/{params.package.slug}"
    assert 6 <= len(metadata["title"]) <= 50
    assert len(metadata["licenses"]) == 1


LIGHT = ("tabular", "external")
"""The kinds in the package of the finished run."""


def imported(kinds: Iterable[str]) -> set[str]:
    """The libraries that the kernel imports with members of these kinds."""
    modules = {ENTRY, *(module for kind in kinds for module in KINDS[kind].modules())}
    return {library for module in modules for library in libraries(module)}


def test_the_code_is_exactly_what_the_kernel_and_its_members_import(finished: Path) -> None:
    code = finished / "artifacts/package/code"
    shipped = sorted(path.relative_to(code) for path in code.rglob("*") if path.is_file())
    assert shipped == kernel_code(LIGHT)
    for path in shipped:
        assert (code / path).read_bytes() == (ROOT / path).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_brings_its_code_and_nothing_that_only_training_needs(kind: str) -> None:
    code = kernel_code([kind])
    assert Path(*KINDS[kind].opener.split(":")[0].split(".")).with_suffix(".py") in code
    parts = {path.parts[1] for path in code}
    assert parts.isdisjoint(
        {"training", "members", "package", "kaggle", "ledger", "report", "config.py", "validation.py", "stage.py"}
    )
    allowed = {"numpy", "scipy", "sklearn", "lightgbm", "polars", "safetensors", "threadpoolctl"}
    allowed |= {"torch", "transformers", "tokenizers", "peft", "bitsandbytes"}
    assert imported([kind]) <= allowed


def test_without_networks_no_code_of_theirs_is_shipped() -> None:
    networks = {name for name, kind in KINDS.items() if kind.network}
    extra = set(kernel_code(KINDS)) - set(kernel_code(LIGHT))
    assert {path.parent.name for path in extra} >= {"deberta", "backbones"}
    assert Path("pipeline/inference/network_member.py") in extra
    assert imported(networks) - imported(LIGHT) >= {"bitsandbytes", "peft", "transformers"}


def test_the_shipped_code_runs_without_the_rest(finished: Path) -> None:
    """In a fresh process that sees the package's code only, and in which the forbidden libraries cannot be imported."""
    program = (
        "import sys\n"
        "sys.path[:] = [path for path in sys.path if path] + [sys.argv[1]]\n"
        "sys.modules.update(dict.fromkeys(('pydantic', 'yaml', 'tqdm', 'dvc', 'pipeline.training')))\n"
        "import pipeline.kernel.run\n"
        "light = sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'polars', 'scipy', 'lightgbm'})\n"
        "import pipeline.kernel.serve, pipeline.kernel.worker\n"
        "heavy = sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers'})\n"
        "print(light, heavy, pipeline.kernel.serve.__file__)\n"
    )
    code = finished / "artifacts/package/code"
    command = [sys.executable, "-B", "-c", program, str(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=finished)
    # Nothing heavy before the package's wheels stand on the path.
    assert done.stdout.strip() == f"[] [] {code / 'pipeline/kernel/serve.py'}", done.stderr


def test_no_member_file_is_a_pickle(finished: Path) -> None:
    for path in (finished / "artifacts/package/members").rglob("*.*"):
        assert path.suffix in (".json", ".txt", ".safetensors", ".parquet")
        assert path.read_bytes()[:1] != b"\x80"


def test_weights_and_wheels_are_links_and_code_is_a_copy(finished: Path) -> None:
    package, artifacts = finished / "artifacts/package", finished / "artifacts"
    for path in (package / "members").rglob("*.*"):
        assert path.samefile(artifacts / path.relative_to(package))
    for path in (package / "code").rglob("*.py"):
        assert path.stat().st_nlink == 1


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_a_gpu_packs_a_base_with_the_same_codes_and_halves_of_the_rest(
    precision: str, backbones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As published: in bf16, which fp16 and fp32 hold alike. A GPU rounds other weights, to other codes at times.
    shutil.copytree(backbones, tmp_path / "run")
    for file in (tmp_path / "run").rglob("model.safetensors"):
        save_file({name: each.bfloat16() for name, each in load_file(file).items()}, file, {"format": "pt"})
    packed = {}
    for gpus in (0, 1):
        if gpus:
            pretend(monkeypatch)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        package = Artifacts(tmp_path / str(gpus))
        _pack_backbone(Artifacts(tmp_path / "run"), "llama", KINDS["decoder"], precision, package)
        (file,) = package.quantised("llama", precision).glob("*.safetensors")
        packed[gpus] = load_file(file)
    assert set(packed[0]) == set(packed[1])
    for name, each in packed[0].items():
        other = packed[1][name]
        if each.dtype in (torch.uint8, torch.int8) and not name.endswith("bitsandbytes__nf4"):
            assert torch.equal(each, other), name  # also the state of nf4, but for the dtype that it names
        elif "norm" in name or "embed" in name:
            assert (each.dtype, other.dtype) == (torch.float32, torch.float16)
            assert torch.equal(each.half(), other)


def test_labels_stay_at_home(finished: Path, lmsys: Competition) -> None:
    package = finished / "artifacts/package"
    assert not (package / "stack/level2.parquet").exists()
    parity = pl.read_parquet(package / "parity.parquet")
    columns = [f"{member}/{name}" for member in ("words", "shape", "friend") for name in lmsys.classes]
    assert parity.columns == ["id", "fold", "prompt", "a", "b", *columns]


def test_parity_rows_are_the_oof_rows_and_hold_each_folds_longest(finished: Path) -> None:
    artifacts = finished / "artifacts"
    parity = pl.read_parquet(artifacts / "package/parity.parquet")
    oof = pl.read_parquet(artifacts / "oof/oof.parquet")
    train = pl.read_parquet(artifacts / "competition/train.parquet")
    columns = [name for name in parity.columns if "/" in name]
    same = parity.select("id").join(oof, on="id", how="left", maintain_order="left")
    assert same.select("id", "fold", *columns).equals(parity.select("id", "fold", *columns))
    lengths = {
        row["id"]: sum(len(turn or "") for field in ("prompt", "a", "b") for turn in row[field])
        for row in train.iter_rows(named=True)
    }
    for fold in (0, 1):
        chosen = parity.filter(pl.col("fold") == fold)["id"].to_list()
        assert len(chosen) == len(set(chosen)) == ROWS_PER_FOLD
        assert max(map(lengths.__getitem__, chosen)) == max(
            lengths[i] for i in oof.filter(pl.col("fold") == fold)["id"]
        )


def test_small_folds_give_all_their_rows(lmsys: Competition) -> None:
    train = pl.DataFrame(
        {"id": ["1", "2", "3"], **{field: [["x"], [None, "yy"], ["z"]] for field in lmsys.kind.fields}}
    )
    oof = pl.DataFrame({"id": ["3", "1", "2"], "fold": pl.Series([1, 0, 0], dtype=pl.Int8)})
    found = parity_rows(train, oof.with_columns(pl.lit(0.5).alias(f"m/{name}") for name in lmsys.classes), ["m"], lmsys)
    assert found["id"].to_list() == ["1", "2", "3"]
    assert found["a"].to_list() == [["x"], [None, "yy"], ["z"]]


def test_two_builds_give_the_same_bytes(copied: Path, finished: Path, params: Params, wheels: list[Path]) -> None:
    build_package(Artifacts(copied), params.package, wheels)
    assert manifest_of(copied / "package") == manifest_of(finished / "artifacts/package")
    for name in ("MANIFEST.json", "dataset-metadata.json"):
        assert (copied / "package" / name).read_bytes() == (finished / "artifacts/package" / name).read_bytes()


def test_a_fold_model_that_says_something_else_is_refused(copied: Path, params: Params, wheels: list[Path]) -> None:
    shutil.rmtree(copied / "members/shape/fold1")
    shutil.copytree(copied / "members/shape/fold0", copied / "members/shape/fold1")
    before = sha256_file(copied / "package/MANIFEST.json")
    message = r"shape fold 1: expected its out-of-fold predictions within 0\.0001, found a difference of 0\.\d+"
    with pytest.raises(PodiumError, match=message):
        build_package(Artifacts(copied), params.package, wheels)
    assert sha256_file(copied / "package/MANIFEST.json") == before  # the old package is still whole
    assert [path.name for path in copied.iterdir() if "partial" in path.name] == []


def test_a_fold_model_that_is_gone_is_named(copied: Path, params: Params, wheels: list[Path]) -> None:
    shutil.rmtree(copied / "members/words/fold1")
    with pytest.raises(
        PodiumError, match=r"words/fold1/member\.json: expected a fold model of member words, found none"
    ):
        build_package(Artifacts(copied), params.package, wheels)


def test_only_what_the_stack_uses_is_packed(copied: Path, params: Params, wheels: list[Path]) -> None:
    ladder = json.loads((copied / "stack/ladder.json").read_text())
    ladder["rungs"] = ladder["rungs"][:2]
    (copied / "stack/ladder.json").write_text(json.dumps(ladder))
    (copied / "members/words/fold1/member.json").write_text('{"kind": "tabular", "trained": false}')
    settings = replace(params.package, budget_seconds=99)
    build_package(Artifacts(copied), settings, wheels)
    manifest = manifest_of(copied / "package")
    assert set(manifest["members"]) == {"words"}
    assert manifest["members"]["words"]["folds"] == [0]
    assert {name.split("/")[1] for name in manifest["files"] if name.startswith("members/")} == {"words"}
    assert not any("fold1" in name for name in manifest["files"])
    assert manifest["budget_seconds"] == 99


def test_a_class_that_never_occurred_keeps_a_share(copied: Path, params: Params, wheels: list[Path]) -> None:
    ladder = json.loads((copied / "stack/ladder.json").read_text())
    ladder["prior"] = [0.6, 0.4, 0.0]
    (copied / "stack/ladder.json").write_text(json.dumps(ladder))
    build_package(Artifacts(copied), params.package, wheels)
    assert 0 < manifest_of(copied / "package")["prior"]["winner_tie"] < 1e-5


def test_files_are_copied_where_they_cannot_be_linked(
    copied: Path, params: Params, wheels: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def across_devices(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    before = manifest_of(copied / "package")
    monkeypatch.setattr("os.link", across_devices)
    build_package(Artifacts(copied), params.package, wheels)
    assert manifest_of(copied / "package") == before


@pytest.mark.parametrize("script", ["package", "rehearse"])
def test_the_stage_scripts_are_short(script: str) -> None:
    text = (ROOT / "stages" / f"{script}.py").read_text()
    assert len(text.splitlines()) <= 60
    assert f"python -m stages.{script}" in (ast.get_docstring(ast.parse(text)) or "")
