"""What comes from elsewhere and means harm: YAML, weights, code beside them, names, texts. SECURITY.md lists them."""

from __future__ import annotations

import json
import pickle
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from networks import obtained, scratch
from report_run import Page, edit, make_run, rendered
from safetensors.torch import load_file
from support import ROOT

from pipeline.competitions.registry import load_competition
from pipeline.config import Params
from pipeline.errors import PodiumError
from pipeline.models.backbones.loading import load_backbone
from pipeline.settings.backbones import Folder
from pipeline.validation import MOST_BYTES, parse_yaml, read_yaml, validated

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


class Writes:
    """Whose unpickling writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "run")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "a: !!python/object/new:pathlib.Path ['{marker}']",
        "a: !!python/name:os.system",
        "a: !!python/module:os",
        "a: !include {marker}",
    ],
)
def test_a_tag_of_yaml_makes_no_object(tmp_path: Path, text: str) -> None:
    with pytest.raises(PodiumError, match=r"^x\.yaml: not valid YAML: "):
        parse_yaml(text.replace("{marker}", str(tmp_path / "marker")).encode(), "x.yaml")
    assert not list(tmp_path.iterdir())


def laughs(opening: str, closing: str) -> str:
    """Nine lines that stand for a billion values."""
    lines = ["a0: &a0 " + opening.format("x") + closing]
    for level in range(1, 10):
        lines.append(f"a{level}: &a{level} " + opening.format(", ".join([f"*a{level - 1}"] * 9)) + closing)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (laughs("[{}", "]"), "x.yaml: expected at most 200,000 values; are there aliases in aliases (&, *)?"),
        ("a: &a [*a]", "x.yaml: expected at most 200,000 values"),
        ("a: " + "[" * 50_000, "x.yaml: not valid YAML: "),
        ("a: " + "x" * MOST_BYTES, "x.yaml: expected at most 4,000,000 bytes, found 4,000,003"),
    ],
)
def test_a_bomb_of_yaml_is_one_line_at_once(text: str, expected: str) -> None:
    began = time.monotonic()
    with pytest.raises(PodiumError) as caught:
        parse_yaml(text.encode(), "x.yaml")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("architecture", ["deberta-v3", "llama"])
def test_weights_in_a_pickle_run_nothing(tmp_path: Path, architecture: str) -> None:
    obtained(scratch(architecture), tmp_path / "source")
    weights = load_file(tmp_path / "source/model.safetensors")
    (tmp_path / "source/model.safetensors").unlink()
    for name, content in {
        "torch": weights | {"x": Writes(tmp_path / "marker")},
        "raw": Writes(tmp_path / "marker"),
    }.items():
        file = tmp_path / "source/pytorch_model.bin"
        file.write_bytes(pickle.dumps(content)) if name == "raw" else torch.save(content, file)
        with pytest.raises(PodiumError) as caught:
            obtained(Folder(source="path", path=str(tmp_path / "source")), tmp_path / name)
        line = str(caught.value)
        assert "its weights do not load: pytorch_model.bin: expected tensors alone, since a pickle may run" in line
        assert line.endswith("where you trust it, save them with safetensors.torch.save_file")
        assert "\n" not in line
        with pytest.raises(PodiumError, match="not loadable as a backbone"):
            load_backbone(tmp_path / "source", "fp32", "cpu")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("known", [True, False])
def test_code_beside_weights_is_not_run(tmp_path: Path, known: bool) -> None:
    source = tmp_path / "source"
    obtained(scratch("deberta-v3"), source)
    (source / "mine.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'marker')!r}).touch()\nclass Mine: pass\n"
    )
    config = json.loads((source / "config.json").read_text())
    config["auto_map"] = {name: "mine.Mine" for name in ("AutoConfig", "AutoModel", "AutoModelForMaskedLM")}
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}
    if not known:
        config["model_type"] = "mine"
    for name, value in {"config.json": config, "tokenizer_config.json": tokenizer}.items():
        (source / name).write_text(json.dumps(value))
    settings = Folder(source="path", path=str(source))
    if known:
        obtained(settings, tmp_path / "made")
        load_backbone(tmp_path / "made", "fp32", "cpu")
        load_backbone(source, "fp32", "cpu")
        assert not list((tmp_path / "made").glob("*.py"))
    else:
        with pytest.raises(PodiumError):
            obtained(settings, tmp_path / "made")
        with pytest.raises(PodiumError, match="not loadable as a backbone"):
            load_backbone(source, "fp32", "cpu")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "name", ["a; touch marker", "a$(touch marker)", "a`id`", "a b", "a|b", "../a", "a\n", "-a", "A", ""]
)
@pytest.mark.parametrize("section", ["members", "backbones"])
def test_no_name_says_anything_to_a_shell(section: str, name: str) -> None:
    params = read_yaml(ROOT / "params.yaml")
    params[section][name] = next(iter(params[section].values()))
    with pytest.raises(PodiumError, match=rf"^params\.yaml: {section}\."):
        validated(Params, params, "params.yaml")


def test_commands_hold_names_and_numbers_alone() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = [(stage.get("do") or stage)["cmd"] for stage in stages.values()]
    filled = {each for command in commands for each in re.findall(r"\$\{([^}]*)\}", command)}
    assert filled == {"key", "item.model", "item.student", "item.fold"}  # keys of members and backbones, or folds.ids


def test_no_text_of_the_competition_is_html_on_the_page(tmp_path: Path) -> None:
    sly = replace(load_competition("lmsys"), classes=(SCRIPT, f'"{SCRIPT}', f"'{SCRIPT}"))
    run = make_run(tmp_path, sly, {SCRIPT: (0.6, 0.5), "words": (0.5, 0.6)})

    def spoil(found: dict[str, Any]) -> None:
        row = found["disagreements"][0]
        row["id"], row["texts"] = SCRIPT, dict.fromkeys(row["texts"], SCRIPT)

    edit(run, "artifacts/diagnostics.json", spoil)
    edit(run, "metrics/cv.json", lambda cv: cv["warnings"].append(SCRIPT))
    text = rendered(run)
    assert re.findall(r"<(?:script|img)", text) == []
    assert "49</" not in text
    assert Page(text).text.count(SCRIPT) >= 6


def test_the_page_on_security_names_tests_that_are_there() -> None:
    named = re.findall(r"`([^`]*test_\w+\.py)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).is_file()] == []
