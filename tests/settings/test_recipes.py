"""Recipes by name, rates from a reference, and training settings that contradict each other."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params, member_settings
from pipeline.errors import PodiumError
from pipeline.kinds import settings_from_json
from pipeline.members.start import resolve
from pipeline.settings.backbones import Pretraining
from pipeline.settings.optimisation import Reference
from pipeline.settings.recipes import FOLDER, recipes
from pipeline.validation import validated

TABLE = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]
"""The networks in the documentation: recipe, repository, weights, rate and so on, LoRA, tokens, GB in training, in the
kernel and on disk, source."""
SHAPES = {  # as published: layers, width, width of queries, width of keys, of the middle, vocabulary, language heads
    "qwen3/4b": (36, 2560, 4096, 1024, 9728, 151936, 0),
    "qwen3/8b": (36, 4096, 4096, 1024, 12288, 151936, 1),
    "qwen3/14b": (40, 5120, 5120, 1024, 17408, 151936, 1),
    "qwen2.5/7b": (28, 3584, 3584, 512, 18944, 152064, 1),
    "qwen2.5/14b": (48, 5120, 5120, 1024, 13824, 152064, 1),
    "phi-4/14b": (40, 5120, 5120, 1280, 17920, 100352, 1),
    "gemma-2/9b": (42, 3584, 4096, 2048, 14336, 256000, 0),
    "gemma-3/4b": (34, 2560, 2048, 1024, 10240, 262208, 0),
    "gemma-3/12b": (48, 3840, 4096, 2048, 15360, 262208, 0),
}


def a_member(kind: str = "encoder", **given: Any) -> dict[str, Any]:
    usual = {"kind": kind, "backbone": "bert" if kind == "encoder" else "llama", "max_tokens": 64}
    return usual | {"training": {"schedule": {"rate": 1e-4}}} | given


def parsed(member: dict[str, Any]) -> Any:
    return member_settings(member)


def refused(member: dict[str, Any], **backbones: Any) -> str:
    """The one line that params.yaml with this member is refused with."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"members": {"one": member}}
    for name, changed in backbones.items():
        params["backbones"][name] |= changed
    with pytest.raises(PodiumError) as caught:
        validated(Params, params, "params.yaml")
    line = str(caught.value)
    assert "\n" not in line and line.startswith("params.yaml: members.one")
    return line


def test_the_recipes_are_those_that_the_documentation_names() -> None:
    general = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").split("## Recipes")[1].split("\n## ")[0]
    assert sorted(recipes()) == sorted(
        [line.split("`")[1] for line in general.splitlines() if line.startswith("| `")] + [row[0] for row in TABLE]
    )


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_says_where_it_comes_from_and_each_of_its_values_holds(name: str) -> None:
    assert (FOLDER / f"{name.split('/')[0]}.yaml").read_text(encoding="utf-8").startswith("# ")
    recipe = recipes()[name]
    member = {"kind": "decoder" if "lora" in recipe else "encoder", "backbone": "bert", "recipe": name}
    found = parsed({"max_tokens": 64} | member | recipe)
    bare = parsed(member | ({} if "max_tokens" in recipe else {"max_tokens": 64}))
    assert found == bare and bare.recipe == name

    def holds(part: dict[str, Any], dumped: dict[str, Any]) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                holds(value, dumped[key])
            else:
                assert dumped[key] == value, key

    holds(recipe, asdict(bare))
    assert settings_from_json(json.loads(json.dumps(asdict(bare)))) == bare  # as the start file has it


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_the_table_of_networks_says_what_their_recipes_do(row: list[str]) -> None:
    name, repository, weights, training, adapters, tokens, learning, asked, disk, source = row
    text = (FOLDER / f"{name.split('/')[0]}.yaml").read_text(encoding="utf-8")
    assert re.search(rf"# {re.escape(repository)}, revision [0-9a-f]{{40}}( |$)", text, re.MULTILINE)
    assert "https://" in source and "https://" in text
    found = parsed({"kind": "decoder" if name in SHAPES else "encoder", "backbone": "bert", "recipe": name})
    schedule, batches = found.training.schedule, found.training.batches
    assert training == f"{schedule.rate:.3g}, {found.training.epochs}, {batches.rows_per_step}"
    assert tokens == str(found.max_tokens)
    if name in SHAPES:
        layers, width, queries, keys, middle, vocabulary, heads = SHAPES[name]
        linear, table = layers * (2 * width * (queries + keys) + 3 * width * middle), vocabulary * width
        sides = 2 * (2 * width + queries + keys) + 3 * (width + middle)
        if name == "phi-4/14b":  # queries, keys and values are one layer there, gate and up another
            sides -= 2 * width + width
        lora, base = found.lora.rank * layers * sides, 2 * table
        base += {"nf4": 0.516, "int8": 1.0}[found.inference.precision] * linear
        kept = 4 * layers * width * batches.tokens_per_batch
        whole = linear + (1 + heads) * table
        sizes = base + 16 * lora + kept, base + 4 * lora, 2 * whole, 4 * lora
        assert adapters == f"{found.lora.rank}, {found.lora.alpha:g}, {found.inference.precision}"
        assert weights == f"{whole / 1e9:.1f} B" and found.training.gradient_checkpointing
    else:
        count = float(weights.removesuffix(" M")) * 1e6
        sizes = 16 * count, 2 * count, 4 * count, 2 * count
        assert (adapters, found.inference.precision) == ("all weights", "fp16")
    assert [learning, asked, *disk.split(" + ")] == [f"{size / 1e9:.1f}" for size in sizes]


def test_a_family_has_a_recipe_for_each_size_and_none_without() -> None:
    rates = [parsed(a_member(recipe=f"deberta-v3/{size}") | {"training": {}}).training for size in ("base", "large")]
    assert [(each.schedule.rate, each.epochs) for each in rates] == [(1.5e-5, 3), (7e-6, 2)]
    line = refused(a_member("decoder", recipe="qwen3"))
    assert 'no recipe "qwen3" (did you mean "qwen3/' in line and "qwen3/4b, qwen3/8b, qwen3/14b" in line


def test_a_member_overrides_its_recipe_key_by_key() -> None:
    asked = a_member(recipe="patient", folds=[0], training={"schedule": {"rate": 3e-4}, "epochs": 5})
    found = parsed(asked).training
    assert (found.epochs, found.schedule.rate) == (5, 3e-4)
    assert (found.schedule.warmup, found.batches.rows_per_step) == (0.1, 16)


def test_the_start_file_holds_the_resolved_values(lmsys: Competition, tmp_path: Path, backbones: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["members"] = {"one": a_member(recipe="do-no-harm", training={"epochs": 2})}
    start = resolve("one", validated(Params, params, "params.yaml"), lmsys, Artifacts(backbones))
    assert start["settings"]["recipe"] == "do-no-harm"
    training = start["settings"]["training"]
    assert training["head_first"] == {"epochs": 3, "rate": 1e-3} and training["layer_floor"] == 0.1
    assert training["epochs"] == 2 and training["schedule"]["rate"] == 2e-5
    assert start["max_attempts"] == 3


def test_smart_trains_in_fp32_wherever_it_runs(
    lmsys: Competition, backbones: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "pipeline.training.devices.device.resolve_precision", lambda asked: ("bf16", "this GPU computes with it")
    )
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for recipe, wanted in (("smart", "fp32"), ("patient", "bf16")):
        params["members"] = {"one": a_member(recipe=recipe)}
        start = resolve("one", validated(Params, params, "params.yaml"), lmsys, Artifacts(backbones))
        assert start["settings"]["training"]["precision"] == wanted
        assert f"one: trains in {wanted}: " in capsys.readouterr().out


def test_a_recipe_that_is_not_there_is_named_with_the_nearest() -> None:
    line = refused(a_member(recipe="patiemt"))
    assert 'no recipe "patiemt" (did you mean "patient"?), known are deberta-v3/xsmall, ' in line


def test_a_recipe_that_needs_pretraining_says_so() -> None:
    assert "members.one.recipe: smooth-mlm needs pretraining" in refused(
        a_member(recipe="smooth-mlm"), bert={"pretrain": {"epochs": 0}}
    )


@given(st.floats(1e-6, 1e-2), st.integers(1, 512), st.integers(1, 512))
@settings(max_examples=60, deadline=None)
def test_a_rate_scales_with_the_rows_of_a_step(rate: float, rows: int, asked: int) -> None:
    for rule, power in (("linear", 1.0), ("sqrt", 0.5)):
        reference = {"rate": rate, "rows": rows, "rule": rule}
        assert Reference(**reference).rate_for(rows) == pytest.approx(rate)
        training = {"schedule": {"reference": reference}, "batches": {"rows_per_step": asked}}
        found = parsed(a_member(training=training)).training.schedule
        assert found.rate == pytest.approx(rate * (asked / rows) ** power)


def test_the_published_example_of_linear_scaling() -> None:
    """DeBERTa's pre-training rate of 1e-4 at 256 rows comes to 1.758e-5 at 45."""
    assert Reference(rate=1e-4, rows=256, rule="linear").rate_for(45) == pytest.approx(1.758e-5, rel=1e-3)


def test_pretraining_knows_references_and_its_own_usual_batch() -> None:
    found = validated(Pretraining, {"epochs": 1, "schedule": {"reference": {"rate": 1e-4, "rows": 256}}}, "x")
    assert found.schedule is not None and found.schedule.rate == pytest.approx(5e-5)  # 64 rows


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"ema": 0.1, "swa": 0.5}, "ema and swa are two averages of the same weights: choose one"),
        ({"layer_decay": 0.9, "layer_floor": 0.1}, "layer_decay and layer_floor are two rules for the same rates"),
        ({"reinit_layers": 1, "head_first": {}}, "head_first cannot follow reinit_layers"),
        ({"evaluations_per_epoch": 3}, "evaluations_per_epoch needs inner > 0"),
        ({"schedule": {"rate": 1e-4, "reference": {"rate": 1e-4, "rows": 256}}}, "leave out schedule.rate"),
        ({"schedule": {"reference": {"rate": 1e-4}}}, "schedule.reference: expected {rate: …, rows: …, rule: "),
        ({"schedule": {"reference": 3}}, "schedule.reference: expected {rate: …, rows: …, rule: "),
        ({"swa": 1.5}, "members.one.training.swa: input should be less than or equal to 1"),
        ({"runs": 0}, "members.one.training.runs: input should be greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(training: dict[str, Any], expected: str) -> None:
    assert expected in refused(a_member(training={"schedule": {"rate": 1e-4}} | training))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"training": {"reinit_layers": 2}}, "reinit_layers is for encoders: adapters cannot train a layer drawn anew"),
        ({"training": {"freeze_embeddings": True}}, "of a decoder only adapters and head learn"),
        ({"recipe": "do-no-harm"}, "of a decoder only adapters and head learn"),
        ({"training": {"dropout": 0.0}, "lora": {"dropout": 0.2}}, "replaces every rate: leave out lora.dropout"),
    ],
)
def test_what_adapters_cannot_do_is_refused(changed: dict[str, Any], expected: str) -> None:
    member = a_member("decoder", inference={"precision": "nf4"})
    training = member["training"] | changed.pop("training", {})
    assert expected in refused(member | {"training": training} | changed)


def test_dropout_off_reaches_the_adapters(backbones: Path) -> None:
    from pipeline.members.decoder import adapted_base

    asked = a_member("decoder", training={"schedule": {"rate": 1e-4}, "dropout": 0.0})
    base = adapted_base(backbones / "backbones/llama", parsed(asked), "cpu")
    assert {getattr(each, "p", 0.0) for each in base.modules()} == {0.0}


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"r_drop": {}, "dropout": 0.0}, "r_drop compares two draws of dropout: with dropout 0 there is nothing"),
        ({"fgm": {"on": "table"}, "freeze_embeddings": True}, "fgm.on table follows the table's gradient"),
        ({"fgm": {"on": "table"}, "awp": {}}, "fgm.on table and awp are two attacks on the same step's weights"),
        ({"mixout": {}, "reinit_layers": 1}, "mixout falls back to pretrained weights, and reinit_layers has none"),
        ({"smart": {}, "precision": "bf16"}, "smart moves words by less than bf16 can tell: use precision fp32"),
        ({"deni": {}, "ema": 0.1}, "deni averages and votes by itself"),
        ({"deni": {}, "mixout": {}}, "deni averages and votes by itself"),
        ({"soup": {}}, "soup needs inner > 0: it is chosen on that slice of the training rows"),
        ({"soup": {"moments": 1}, "inner": 0.1}, "training.soup.moments: input should be greater than or equal to 2"),
        ({"deni": {}, "stable_lora": {}}, "stable_lora shrinks the network's adapters and deni trains others beside"),
        ({"stable_lora": {}}, "training.stable_lora is for decoders: all of an encoder learns, without adapters"),
        ({"dsgd": {"strength": 1.5}}, "members.one.training.dsgd.strength: input should be less than or equal to 1"),
        ({"awp": {"step": 0}}, "members.one.training.awp.step: input should be greater than 0"),
    ],
)
def test_attacks_and_penalties_that_cannot_work_are_refused(training: dict[str, Any], expected: str) -> None:
    assert expected in refused(a_member(training={"schedule": {"rate": 1e-4}} | training))


@pytest.mark.parametrize(
    ("training", "lora", "expected"),
    [
        ({"mixout": {}}, {}, "training.mixout is for encoders: adapters have no pretrained weights"),
        ({"fgm": {"on": "table"}}, {}, "training.fgm.on table is for encoders: a decoder's table is frozen"),
        ({"smart": {"form": "sift"}}, {}, "training.smart.space normalised is for encoders"),
        ({"r_drop": {}}, {"dropout": 0.0}, "lora.dropout 0 leaves nothing to compare"),
    ],
)
def test_what_adapters_cannot_be_given_is_refused(
    training: dict[str, Any], lora: dict[str, Any], expected: str
) -> None:
    asked = {"schedule": {"rate": 1e-4}} | training
    assert expected in refused(a_member("decoder", training=asked, lora=lora, inference={"precision": "nf4"}))
