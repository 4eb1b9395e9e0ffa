from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import REVISION, hub
from networks import TEXTS, published_deberta, scratch
from support import ROOT, error_line, run_module

from pipeline.models.backbones.scratch import build_scratch

NOWHERE = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One repository in the form of microsoft/deberta-v3-*, and one in that of meta-llama/*."""
    root = tmp_path_factory.mktemp("hub")
    published_deberta(root / "deberta")
    (root / "llama" / "original").mkdir(parents=True)
    build_scratch(scratch("llama"), TEXTS, root / "llama")
    config = root / "llama" / "tokenizer_config.json"
    described = json.loads(config.read_text())
    described.pop("pad_token")
    config.write_text(json.dumps(described))
    for name in ("pytorch_model.bin", "original/tokenizer.model", "model.fp16.safetensors"):
        (root / "llama" / name).write_text("not wanted")
    return {"microsoft/small": root / "deberta", "meta/small": root / "llama", "meta/gated": root / "llama"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose params.yaml names backbones of the hub."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name in ("microsoft/small", "meta/small", "meta/gated", "meta/unknown", "meta/broken"):
        known = {"source": "hub", "repository": name, "revision": REVISION}
        params["backbones"][name.replace("/", "_")] = known
    params["backbones"]["old"] = {"source": "hub", "repository": "meta/small", "revision": "f" * 40}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def backbone(name: str, project: Path, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The stage, with a Hugging Face cache of its own and the hub at `address`."""
    home = {"HF_HOME": str(project / "hf"), "HF_ENDPOINT": address}
    return run_module("stages.backbone", "--backbone", name, cwd=project, **home, **environment)


def fetched(repository: str, project: Path, **environment: str) -> Path:
    """What fetch alone brings into an empty folder, with no hub to ask."""
    folder = project / "fetched"
    folder.mkdir()
    script = (
        "import sys, pathlib; from pipeline.models.backbones.hub import fetch; "
        "fetch('again', sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))"
    )
    home = {"HF_HOME": str(project / "hf"), "HF_ENDPOINT": NOWHERE}
    command = [sys.executable, "-c", script, repository, REVISION, str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | home | environment, check=True, timeout=60)
    return folder


def described(project: Path, name: str) -> dict:
    return json.loads((project / "artifacts" / "backbones" / name / "backbone.json").read_text())


def cached(project: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (project / "hf").rglob("blobs/*")}


@pytest.mark.slow
def test_a_published_deberta_is_fetched_without_what_is_not_needed_and_again_offline(
    repositories: dict[str, Path], project: Path
) -> None:
    with hub(repositories) as running:
        first = backbone("microsoft_small", project, running.address, HF_TOKEN="hf_mine")
    assert first.returncode == 0, first.stderr
    assert sorted(running.asked) == ["config.json", "pytorch_model.bin", "spm.model", "tokenizer_config.json"]
    assert running.tokens == {"Bearer hf_mine"}
    assert "hf_mine" not in first.stdout + first.stderr
    assert not [file for file in project.rglob("*") if file.is_file() and b"hf_mine" in file.read_bytes()]
    once, blobs = described(project, "microsoft_small"), cached(project)
    assert once["family"] == "encoder" and once["revision"] == REVISION and once["positions"] is None
    folder = project / "artifacts" / "backbones" / "microsoft_small"
    assert {file.name for file in folder.iterdir()} == {
        "backbone.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip
    again = fetched("microsoft/small", project, HF_HUB_OFFLINE="1")
    assert sorted(file.name for file in again.iterdir()) == sorted(running.asked)
    assert cached(project) == blobs


@pytest.mark.slow
def test_safetensors_come_before_other_weights_and_the_cache_keeps_its_files(
    repositories: dict[str, Path], project: Path
) -> None:
    with hub(repositories) as running:
        finished = backbone("meta_small", project, running.address)
    assert finished.returncode == 0, finished.stderr
    assert {name for name in running.asked if name.endswith((".bin", ".safetensors", ".model"))} == {
        "model.safetensors"
    }
    blobs = cached(project)
    source = repositories["meta/small"]
    assert (source / "tokenizer_config.json").read_bytes() in blobs.values()
    made = project / "artifacts" / "backbones" / "meta_small"
    assert json.loads((made / "tokenizer_config.json").read_text())["pad_token"] == "</s>"
    # Several gigabytes are not written twice.
    assert os.stat(made / "model.safetensors").st_nlink == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("old", f"error: backbones.old: meta/small: no revision {'f' * 40}; take the full commit from its page"),
        ("meta_unknown", "error: backbones.meta_unknown: meta/unknown: no such repository at http://"),
        ("meta_gated", "error: backbones.meta_gated: meta/gated: its authors ask for a licence; accept it on http://"),
        ("meta_broken", "error: backbones.meta_broken: meta/broken: http://"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    repositories: dict[str, Path], project: Path, name: str, expected: str
) -> None:
    with hub(repositories, gated=("meta/gated",)) as running:
        line = error_line(backbone(name, project, running.address))
    assert line.startswith(expected)
    assert not (project / "artifacts" / "backbones" / name).exists()


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({}, f"{NOWHERE} cannot be reached"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set")],
)
def test_a_hub_out_of_reach_is_one_line(project: Path, environment: dict[str, str], reason: str) -> None:
    line = error_line(backbone("meta_small", project, NOWHERE, **environment))
    assert line.startswith(f"error: backbones.meta_small: meta/small: {reason} and the cache {project}/hf/hub does not")
