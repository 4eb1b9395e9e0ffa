from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import ROOT

from pipeline import preset
from pipeline.artifacts import Artifacts
from pipeline.config import Params, load_params
from pipeline.errors import PodiumError
from pipeline.prune import prune
from pipeline.resources import disk_needed
from pipeline.settings.backbones import Hub
from pipeline.settings.recipes import FOLDER
from pipeline.validation import parse_yaml, read_yaml, validated


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with the shipped params.yaml committed, and a data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preset, "LAST", tmp_path / "work" / "preset.json")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "votes").mkdir()
    (tmp_path / "other").mkdir()
    for command in ("init -q", "add params.yaml", "-c user.name=x -c user.email=x@x commit -qm one"):
        subprocess.run(["git", *command.split()], check=True, cwd=tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [file.stem for file in preset.PRESETS.glob("*.yaml")])
def test_every_preset_fits_the_params(name: str) -> None:
    text = preset.overlay((ROOT / "params.yaml").read_text(), (preset.PRESETS / f"{name}.yaml").read_text(), "votes")
    params = validated(Params, parse_yaml(text.encode(), name), name)
    assert params.data.path == "votes"


@pytest.mark.parametrize("name", ["server", "workstation"])
def test_the_networks_of_a_preset_are_those_of_its_recipes(name: str) -> None:
    preset_ = read_yaml(preset.PRESETS / f"{name}.yaml")
    described = "".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.yaml"))
    table = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for backbone in preset_["backbones"].values():
        if backbone["source"] == "hub":
            assert f"# {backbone['repository']}, revision {backbone['revision']}" in described
    decoders = [each for each in preset_["members"].values() if each["kind"] == "decoder"]
    assert decoders
    for each in decoders:
        assert f"| `{each['recipe']}` | {preset_['backbones'][each['backbone']]['repository']} |" in table


PARAMETERS = {
    "microsoft/deberta-v3-large": 434e6,
    "microsoft/deberta-v3-small": 141e6,
    "Qwen/Qwen3-8B": 8.19e9,
    "Qwen/Qwen3-14B": 14.77e9,
    "google/gemma-2-9b-it": 9.24e9,
}
"""Weights of the published backbones."""


@pytest.mark.parametrize("name", ["server", "workstation"])
def test_a_preset_of_large_networks_says_how_much_disk_it_takes(name: str, tmp_path: Path) -> None:
    preset_text = (preset.PRESETS / f"{name}.yaml").read_text()
    text = preset.overlay((ROOT / "params.yaml").read_text(), preset_text, "")
    params = validated(Params, parse_yaml(text.encode(), name), name)
    hubs = {key: each.repository for key, each in params.backbones.items() if isinstance(each, Hub)}
    facts = {
        key: {"parameters": PARAMETERS[each], "family": "encoder" if "deberta" in each else "decoder"}
        for key, each in hubs.items()
    }
    (said,) = re.findall(r"^# Disk: about (\d+) GB", preset_text, re.MULTILINE)
    assert float(said) == pytest.approx(disk_needed(params, facts, tmp_path) / 1e9, rel=0.05)


def test_a_preset_shows_what_it_changes_and_keeps_comments(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset.apply_preset("cpu", "votes")
    shown = capsys.readouterr().out
    assert "-  path: data/demo" in shown
    assert "+  path: votes" in shown
    assert "# any folder with" in (project / "params.yaml").read_text()
    assert set(load_params().members) == set(read_yaml(preset.PRESETS / "cpu.yaml")["members"])
    preset.apply_preset("cpu", "votes")
    assert capsys.readouterr().out == ""


def test_a_refit_is_one_more_line_that_a_later_run_takes_back(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset.apply_preset("", "", refit=True)
    shown = capsys.readouterr().out
    assert "\n-refit: false" in shown
    assert "\n+refit: true" in shown
    assert load_params().refit is True
    preset.apply_preset("", "votes")
    assert load_params().refit is False


def test_refit_is_asked_for_with_1() -> None:
    assert preset.refit_flag("1") is True
    assert preset.refit_flag("") is preset.refit_flag("0") is False
    with pytest.raises(PodiumError, match='REFIT: expected 1, or nothing, found "yes"'):
        preset.refit_flag("yes")


def test_another_folder_starts_from_the_committed_file(project: Path) -> None:
    preset.apply_preset("cpu", "votes")
    preset.apply_preset("", "other")
    committed = load_params(ROOT / "params.yaml")
    assert load_params().members == committed.members
    assert load_params().data.path == "other"


def test_a_folder_with_a_competition_of_its_own_names_that_too(project: Path) -> None:
    (project / "votes" / "competition.yaml").write_text("name: votes\n")
    preset.apply_preset("", "votes")
    assert load_params().data.competition == "votes/competition.yaml"
    preset.apply_preset("", "other")
    assert load_params().data.competition == "lmsys"


def test_uncommitted_edits_are_refused_and_kept(project: Path) -> None:
    file = project / "params.yaml"
    mine = file.read_text().replace("threads: 1", "threads: 3")
    file.write_text(mine)
    with pytest.raises(PodiumError, match=r"params.yaml: has uncommitted edits; `git commit params.yaml` or"):
        preset.apply_preset("cpu", "votes")
    assert file.read_text() == mine


def test_an_edit_on_top_of_a_preset_is_an_edit(project: Path) -> None:
    preset.apply_preset("cpu", "votes")
    file = project / "params.yaml"
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(PodiumError, match="uncommitted edits"):
        preset.apply_preset("cpu", "votes")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("cpuu", "votes", r'no preset "cpuu" \(did you mean "cpu"\?\), known are'),
        ("cpu", "nowhere", "DATA: nowhere: no such folder"),
    ],
)
def test_an_unknown_preset_or_folder_is_named(project: Path, name: str, data: str, expected: str) -> None:
    with pytest.raises(PodiumError, match=expected):
        preset.apply_preset(name, data)
    assert (project / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_prune_removes_what_params_no_longer_name_and_nothing_else(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    member = next(iter(params.members))
    kept = ["oof/oof.parquet", "oof/holdout.parquet", f"start/{member}.json", f"receipts/{member}-fold0.json"]
    kept += [f"oof/{member}/fold0.parquet", f"members/{member}/fold0/member.json", f"refit/{member}/parity.parquet"]
    gone = ["receipts/gone-fold0.json", "oof/gone/fold0.parquet", "members/gone/fold0/member.json"]
    gone += ["refit/gone/parity.parquet", f"oof/{member}/holdout99.parquet", f"members/{member}/fold99/member.json"]
    gone += ["tokens/some-tokenizer/some-hash.ids"]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    prune(params, Artifacts(tmp_path))
    assert sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file()) == sorted(kept)
    assert not (tmp_path / "members" / "gone").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((b"# Every", b"data: 1\n# Every"), 'params.yaml as committed: line 5: duplicate key "data"'),
        ((b"# Every", b"# caf\xe9"), "params.yaml as committed: line 1: expected UTF-8, found the byte 0xe9"),
    ],
)
def test_a_committed_mistake_is_one_line(project: Path, change: tuple[bytes, bytes], expected: str) -> None:
    file = project / "params.yaml"
    file.write_bytes(file.read_bytes().replace(*change))
    subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qam", "two"], check=True, cwd=project
    )
    with pytest.raises(PodiumError) as caught:
        preset.apply_preset("cpu", "votes")
    assert str(caught.value) == expected


def test_a_folder_whose_name_is_no_text_is_one_line(project: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    (project / folder).mkdir()
    with pytest.raises(PodiumError, match=r"^DATA: .*: expected a name in utf-8; rename it"):
        preset.apply_preset("", folder)
    (project / "café").mkdir()
    preset.apply_preset("", "café")
    assert load_params().data.path == "café"
