from __future__ import annotations

import random
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import _yaml as dvc_yaml
from support import ROOT, error_line, run_module

from pipeline.config import Params, load_params
from pipeline.errors import PodiumError
from pipeline.settings.finetuning import NetworkSettings
from pipeline.validation import parse_yaml, read_yaml, validated


def changed(*keys: str, value: Any) -> dict[str, Any]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    place = params
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    return params


def a_member(**settings: Any) -> dict[str, Any]:
    return changed("members", value={"one": {"kind": "tabular", "backbone": "none", "model": "logistic"} | settings})


def an_encoder(training: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Params with one member of kind encoder on a backbone of the shipped params."""
    plain = {"kind": "encoder", "backbone": "bert", "max_tokens": 64}
    plain |= {"training": {"schedule": {"rate": 1e-4}} | (training or {})}
    return changed("members", value={"one": plain | settings})


def a_decoder(**settings: Any) -> dict[str, Any]:
    plain = {"kind": "decoder", "backbone": "llama", "max_tokens": 64, "training": {"schedule": {"rate": 1e-4}}}
    return changed("members", value={"one": plain | {"inference": {"precision": "nf4"}} | settings})


def a_backbone(**settings: Any) -> dict[str, Any]:
    return changed("backbones", "mine", value=settings)


def pretraining(**settings: Any) -> dict[str, Any]:
    return changed("backbones", "bert", "pretrain", value=settings)


def test_the_shipped_params_are_sound() -> None:
    assert len(load_params(ROOT / "params.yaml").members) >= 2


def test_params_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load_params(ROOT / "params.yaml").threads = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (changed("fold", value=3), 'unknown key "fold" (did you mean "folds"?)'),
        (a_member(featurs=True), 'unknown key "members.one.featurs" (did you mean "features"?)'),
        (a_member(words={"nn": 1}), 'missing key "members.one.words.longest"'),
        (a_member(logistic={"see": 1.0}), 'unknown key "members.one.logistic.see"'),
        (changed("threads", value="2"), 'threads: input should be a valid integer, found "2"'),
        (changed("threads", value=True), "threads: input should be a valid integer, found true"),
        (changed("folds", "seed", value="1e-4"), 'folds.seed: input should be a valid integer, found "1e-4"'),
        (changed("folds", "ids", value=[1, 2]), "folds.ids: expected [0, 1], found [1, 2]"),
        (changed("folds", "ids", value=list(range(128))), "folds.ids: tuple should have at most 100 items"),
        (changed("folds", "seed", value=-1), "folds.seed: input should be greater than or equal to 0, found -1"),
        (changed("stack", "seed", value=2**31), "stack.seed: input should be less than 2147483648, found 2147483648"),
        (changed("demo", "seed", value=-1), "demo.seed: input should be"),
        (a_member(seed=-1), "members.one.seed: input should be"),
        (an_encoder({"seeds": {"order": -1}}), "members.one.training.seeds.order: input should be"),
        (pretraining(seed=-1), "backbones.bert.pretrain.seed: input should be"),
        (changed("members", value={"x" * 61: {}}), "string should have at most 60 characters"),
        (changed("backbones", "x" * 61, value={"source": "none"}), "string should have at most 60 characters"),
        (changed("package", "owner", value="../me"), "package.owner: string should match pattern"),
        (changed("data", "path", value=""), 'data.path: expected a path, found ""'),
        (changed("data", "path", value="."), "data.path: expected a folder with the competition's files alone"),
        (changed("data", "path", value="/"), "data.path: expected a folder with the competition's files alone"),
        (changed("data", "path", value="s3://bucket/x"), "data.path: expected a path of this machine"),
        (changed("data", "path", value="a\0b"), "data.path: expected a path of this machine"),
        (changed("data", "path", value="a/" + "ä" * 128), "data.path: expected names of at most 255 bytes"),
        (changed("data", "path", value="a/" * 2001), "data.path: expected names of at most 255 bytes, 4000 in all"),
        (changed("data", "competition", value="a\0.yaml"), "data.competition: expected a path of this machine"),
        (a_backbone(source="path", path="x" * 256), "backbones.mine.path: expected names of at most 255 bytes"),
        (pretraining(files=[f"external/{'x' * 256}.txt"]), "pretrain.files.0: expected names of at most 255 bytes"),
        (changed("folds", "holdout", value=0.9), "folds.holdout: input should be less than or equal to 0.5, found 0.9"),
        (a_member(folds=[99]), "members.one.folds: [99] not in folds.ids"),
        (a_member(kind="tabula"), "members.one: input tag 'tabula'"),
        (a_member(features=False), "members.one: give the member an input"),
        (changed("members", value={}), "members: dictionary should have at least 1 item"),
        (
            changed("members", value={"x": {"kind": "external", "backbone": "none", "file": "../x.csv"}}),
            "expected a file under external/",
        ),
    ],
)
def test_a_wrong_key_or_type_is_named(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(PodiumError) as caught:
        validated(Params, params, "params.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (an_encoder(backbone="brt"), 'members.one.backbone: no backbone "brt" (did you mean "bert"?)'),
        (an_encoder(backbone="none"), "members.one: kind encoder cannot use a backbone of source none"),
        (a_member(backbone="bert"), "members.one.backbone: input should be 'none', found \"bert\""),
        (an_encoder(head="equivariant", input="joint"), "head equivariant needs input siamese"),
        (
            an_encoder({"swap": True}, head="equivariant"),
            "head equivariant knows both orders already: leave out training.swap",
        ),
        (an_encoder(head="equivariant", inference={"swap": True}), "leave out training.swap and inference.swap"),
        (
            an_encoder(inference={"long_tokens": 64}),
            "inference.long_tokens: expected more than max_tokens (64), found 64",
        ),
        (an_encoder(inference={"precision": "nf4"}), "inference.precision nf4 is for decoders: use fp32, fp16 or bf16"),
        (an_encoder(network="mine.py"), "expected a .py file under external/"),
        (an_encoder(network="external/mine.txt"), "expected a .py file under external/"),
        (an_encoder({"patience": 2}), "patience needs inner > 0"),
        (
            an_encoder({"epochs": -1}),
            "members.one.training.epochs: input should be greater than or equal to 0, found -1",
        ),
        (an_encoder({"epochs": 0}), "members.one: training.epochs: only head tokens answers without training"),
        (an_encoder({"schedule": {"rat": 1e-4}}), "members.one.training.schedule"),
        (an_encoder(lora={"rank": 4}), 'unknown key "members.one.lora"'),
        (an_encoder(max_tokens=4), "members.one.max_tokens: input should be greater than or equal to 16, found 4"),
        (a_decoder(pooling="cls"), "members.one.pooling: input should be 'last' or 'mean', found \"cls\""),
        (a_decoder(inference={"precision": "int4"}), "members.one.inference.precision: input should be 'fp32'"),
        (a_backbone(source="hubb"), "backbones.mine: input tag 'hubb'"),
        (a_backbone(source="hub", repository="x/y", revision="main"), "backbones.mine.revision: "),
        (a_backbone(source="scratch", architecture="llama", hidden=100, heads=3), "must be a multiple of 2 * heads"),
        (pretraining(epochs=1), "epochs > 0 needs a schedule, such as {rate: 5.0e-5}"),
        (pretraining(files=["other/x.txt"]), "files.0: expected a .txt or .parquet file under external/"),
    ],
)
def test_a_neural_setting_that_does_not_fit_is_one_line(params: dict[str, Any], expected: str) -> None:
    with pytest.raises(PodiumError) as caught:
        validated(Params, params, "params.yaml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stage_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed("fold", value=3)))
    assert 'did you mean "folds"?' in error_line(run_module("stages.folds", cwd=tmp_path))
    assert "Traceback" in run_module("stages.folds", cwd=tmp_path, PODIUM_DEBUG="1").stderr


def test_broken_and_missing_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(PodiumError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(PodiumError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")


SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")
LINES = SHIPPED.splitlines()


@pytest.mark.parametrize(
    "name", ["params.yaml", *(f"pipeline/competitions/{name}.yaml" for name in ("lmsys", "spooky"))]
)
def test_a_file_is_read_as_dvc_reads_it(name: str) -> None:
    content = (ROOT / name).read_bytes()
    assert parse_yaml(content, name) == dvc_yaml.parse_yaml(content.decode(), name)
    assert parse_yaml(content, name) == yaml.safe_load(content)  # nothing that is shipped means two things


@pytest.mark.parametrize(
    "text", ["5e-05", "1e-4", "1.0e-4", "010", "0o10", "no", "yes", "on", "12:30:45", "1_000", "~"]
)
def test_a_value_is_read_as_dvc_reads_it(text: str) -> None:
    expected = dvc_yaml.parse_yaml(f"a: {text}\n", "params.yaml")["a"]
    found = parse_yaml(f"a: {text}\n".encode(), "params.yaml")["a"]
    assert (type(found), found) == (type(expected), expected)


def test_a_number_that_dvc_wrote_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(SHIPPED.replace("rate: 1.5e-3", "rate: 5e-05"), encoding="utf-8")
    siamese = load_params(file).members["siamese"]
    assert isinstance(siamese, NetworkSettings)
    assert siamese.training.schedule.rate == 5e-05
    file.write_text(SHIPPED.replace("  words:\n", "  no:\n"), encoding="utf-8")
    assert "no" in load_params(file).members


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            SHIPPED.replace("  shape:\n", "  words:\n").encode(),
            f'params.yaml: line {LINES.index("  shape:") + 1}: duplicate key "words"',
        ),
        (SHIPPED.encode() + b"# caf\xe9\n", f"params.yaml: line {len(LINES) + 1}: expected UTF-8, found the byte 0xe9"),
        (SHIPPED.encode("utf-16"), "params.yaml: line 1: expected UTF-8, found the byte 0xff"),
        (
            SHIPPED.replace("  words:\n", "  true:\n").encode(),
            "params.yaml: key True: expected a text, found bool; put",
        ),
        (SHIPPED.replace("seed: 5", "seed: !!int x").encode(), "params.yaml: not valid YAML: ValueError: invalid"),
        (SHIPPED.replace("seed: 5", "seed: &x [*x]").encode(), "params.yaml: expected at most 200,000 values"),
        (
            SHIPPED.replace("rate: 1.5e-3", "rate: .inf").encode(),
            "params.yaml: members.siamese.training.schedule.rate: e",
        ),
        (SHIPPED.replace("holdout: 0.1", "holdout: .nan").encode(), "params.yaml: folds.holdout: expected a finite nu"),
        (SHIPPED.replace("[0, 1, 2]", "[0, -.inf]").encode(), "params.yaml: folds.ids.1: expected a finite number, fo"),
        (
            SHIPPED.replace("path: data/demo", 'path: "\\ud800"').encode(),
            "params.yaml: data.path: expected text, found h",
        ),
        (SHIPPED.replace("seed: 3", '"\\ud800": 3').encode(), "params.yaml: stack.\\ud800: expected text, found half"),
        (b"", "params.yaml: Input should be an object"),
    ],
)
def test_what_no_yaml_says_is_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(PodiumError) as caught:
        load_params(tmp_path / "params.yaml")
    line = str(caught.value).removeprefix(f"{tmp_path}/")
    assert line.startswith(expected)
    assert "\n" not in line


@pytest.mark.parametrize("files", [60, pytest.param(1_000, marks=pytest.mark.slow)])
def test_any_damage_is_one_line_or_what_dvc_reads(tmp_path: Path, files: int) -> None:
    draw, file = random.Random(files), tmp_path / "params.yaml"
    pieces = [
        *"{}[]:~&*|#'\"\t\n",
        ": ",
        "- ",
        "!!int ",
        "!!bool ",
        "!!set ",
        "*a ",
        "<<: ",
        "? ",
        "---\n",
        "2020-99-99",
        "0x",
    ]
    pieces += ["\0", "\x85", "\u2028", "%YAML 1.1\n", "members:\n", "  seed: 1\n", "é"]
    for _ in range(files):
        text = SHIPPED
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(pieces) + text[place + draw.randint(0, 3) :]
        file.write_text(text, encoding="utf-8")
        try:
            load_params(file)
        except PodiumError as error:
            assert not {"\n", "\r"} & set(str(error)), text
        else:
            assert read_yaml(file) == dvc_yaml.parse_yaml(text, "params.yaml")
