from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fold_models import FOLDS, ROWS, asked, trained
from networks import decoder, encoder, lay_backbone, ready, scratch, start_of
from safetensors.torch import load_file, save_file
from support import ROOT, preference_rows

from pipeline.artifacts import POINTER, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Params, load_params
from pipeline.data.rows import swapped
from pipeline.data.split import split_rows
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.inference import open_network
from pipeline.inference.predict import open_member, predict_member
from pipeline.members.fold import quick_look
from pipeline.members.start import resolve
from pipeline.models.backbones.loading import load_backbone
from pipeline.settings.finetuning import NetworkSettings


def told(artifacts: Artifacts, part: str, competition: Competition) -> np.ndarray:
    return pl.read_parquet(artifacts.root / "oof/mine" / part).select(competition.classes).to_numpy()


MEMBERS = {
    "siamese": encoder(),
    "siamese, equivariant": encoder(head="equivariant"),
    "siamese, attention, fp16": encoder(pooling="attention", inference={"precision": "fp16"}),
    "siamese, mean, bf16": encoder(inference={"precision": "bf16"}),
    "joint, cls": encoder(input="joint", pooling="cls", training={"gradient_checkpointing": True}),
    "joint, attention, swap": encoder(
        input="joint", pooling="attention", training={"swap": True}, inference={"swap": True}
    ),
    "decoder": decoder(),
    "decoder, nf4, swap": decoder(inference={"precision": "nf4", "swap": True}, training={"swap": True}),
    "decoder, nf4, checkpointing": decoder(precision="nf4", training={"gradient_checkpointing": True}),
    "decoder, int8": decoder(precision="int8"),
    "decoder, fp16": decoder(precision="fp16"),
    "decoder, bf16": decoder(precision="bf16"),
    "trained in bf16": encoder({"precision": "bf16"}),
    "trained in fp16": encoder({"precision": "fp16"}),
    "decoder, nf4, trained in bf16": decoder({"precision": "bf16"}, "nf4"),
    "decoder, int8, trained in fp16": decoder({"precision": "fp16", "gradient_checkpointing": True}, "int8"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_saved_model_says_what_its_out_of_fold_part_says(
    name: str, artifacts: Artifacts, lmsys: Competition
) -> None:
    folder = trained(artifacts, MEMBERS[name], lmsys)
    rows = asked(artifacts)
    answer = predict_member(folder, artifacts, rows, lmsys)
    assert np.isfinite(answer).all() and np.allclose(answer.sum(axis=1), 1, atol=1e-6)
    tolerance = 2e-2 if MEMBERS[name].inference.precision in ("fp16", "bf16", "int8") else 1e-6
    assert np.abs(answer - told(artifacts, "fold0.parquet", lmsys)).max() <= tolerance
    holdout = predict_member(folder, artifacts, asked(artifacts, -1), lmsys)
    assert np.abs(holdout - told(artifacts, "holdout0.parquet", lmsys)).max() <= tolerance
    # Neither the order of the rows nor their company matters.
    backwards = predict_member(folder, artifacts, rows.reverse(), lmsys)[::-1]
    assert np.abs(answer - backwards).max() <= tolerance
    receipt = read_json(artifacts.receipt("mine", 0))
    assert receipt["training"]["curve"]
    if MEMBERS[name].training.precision != "fp16":  # its first steps may overflow
        assert receipt["training"]["skipped"] == 0
    assert len({tuple(row) for row in answer.round(9)}) > 1


def test_all_passes_of_all_folds_share_the_token_ids_of_their_tokenizer(
    artifacts: Artifacts, lmsys: Competition
) -> None:
    kept = artifacts.tokens
    folder = trained(artifacts, encoder(inference={"swap": True, "long_tokens": 128}), lmsys)
    files = {file: file.stat().st_mtime_ns for file in kept.rglob("*.ids")}
    assert len({file.parent for file in files}) == 1
    trained(artifacts, encoder({"swap": True}, input="joint", max_tokens=48), lmsys, fold=1)
    every = pl.concat([asked(artifacts), asked(artifacts, 1), asked(artifacts, -1)])
    answer = predict_member(folder, artifacts, every, lmsys, kept)
    assert np.array_equal(answer, predict_member(folder, artifacts, every, lmsys))
    # All rows have been read while fold 0 was trained: nothing was left to add, or to write again.
    assert {file: file.stat().st_mtime_ns for file in kept.rglob("*.ids")} == files


@pytest.mark.parametrize("name", ["siamese, equivariant", "joint, attention, swap", "decoder, nf4, swap"])
def test_mirrored_rows_get_mirrored_answers(name: str, artifacts: Artifacts, lmsys: Competition) -> None:
    folder, rows = trained(artifacts, MEMBERS[name], lmsys), asked(artifacts)
    straight = predict_member(folder, artifacts, rows, lmsys)
    mirrored = predict_member(folder, artifacts, swapped(rows, lmsys.kind), lmsys)
    assert np.abs(straight - lmsys.mirrored(mirrored)).max() < 1e-6


@pytest.mark.parametrize("settings", [encoder(), decoder(precision="nf4")], ids=["encoder", "decoder"])
def test_two_devices_say_the_same_as_one(settings: NetworkSettings, artifacts: Artifacts, lmsys: Competition) -> None:
    settings = replace(settings, inference=replace(settings.inference, tokens_per_batch=256))
    folder, rows = trained(artifacts, settings, lmsys), asked(artifacts)
    alone = predict_member(folder, artifacts, rows, lmsys)
    with closing(open_member(folder, artifacts, lmsys, ["cpu", "cpu"])) as member:
        for _ in range(2):
            assert np.abs(member.predict(rows) - alone).max() < 1e-6


def test_half_precision_is_near_the_whole(artifacts: Artifacts, lmsys: Competition) -> None:
    folder, rows = trained(artifacts, encoder(pooling="attention"), lmsys), asked(artifacts)
    whole = predict_member(folder, artifacts, rows, lmsys)
    about = read_json(folder / "member.json")
    for precision in ("fp16", "bf16"):
        about["settings"]["inference"]["precision"] = precision
        write_json(folder / "member.json", about)
        assert np.abs(predict_member(folder, artifacts, rows, lmsys) - whole).max() < 2e-2


@pytest.mark.parametrize("settings", [encoder(), decoder(precision="nf4")], ids=["encoder", "decoder"])
def test_one_text_and_several_classes(
    settings: NetworkSettings, tmp_path: Path, backbones: Path, spooky: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(ROWS).select("id", "label", text="a")
    artifacts = Artifacts(ready(tmp_path, rows, spooky, FOLDS, backbones))
    folder = trained(artifacts, settings, spooky)
    answer = predict_member(folder, artifacts, asked(artifacts), spooky)
    assert np.abs(answer - told(artifacts, "fold0.parquet", spooky)).max() < 1e-6


def test_a_quick_look_prints_rows_and_keeps_nothing(
    artifacts: Artifacts, lmsys: Competition, capsys: pytest.CaptureFixture[str]
) -> None:
    start = start_of("mine", encoder(), lmsys, artifacts.root)
    split = split_rows(artifacts.train().collect(), artifacts.folds(), 0)
    assert quick_look(split, start, 0, 16, artifacts).score > 0
    shown = capsys.readouterr().out
    assert "row 1012, label winner_" in shown and "[CLS]" in shown and "Question" in shown
    assert not any((artifacts.root / each).exists() for each in ("members", "oof", "receipts", "tokens"))


# What does not belong together.


def another_backbone(artifacts: Artifacts, folder: Path) -> None:
    file = artifacts.pretrained(read_json(folder / "member.json")["settings"]["backbone"]) / POINTER
    write_json(file, read_json(file) | {"sha256": "0" * 64})


def without_tokenizer(artifacts: Artifacts, folder: Path) -> None:
    for file in (artifacts.root / "backbones").glob("*/tokenizer*"):
        file.unlink()


def without_weights(artifacts: Artifacts, folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated_weights(artifacts: Artifacts, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


def another_network(artifacts: Artifacts, folder: Path) -> None:
    about = read_json(folder / "member.json")
    about["settings"]["pooling"] = "attention"
    write_json(folder / "member.json", about)


def another_head(artifacts: Artifacts, folder: Path) -> None:
    head = load_file(folder / "head.safetensors")
    save_file({name: each + 0.1 for name, each in head.items()}, folder / "head.safetensors")


def another_base(artifacts: Artifacts, folder: Path) -> None:
    sha = artifacts.backbone_facts("llama")["sha256"]
    for each in (artifacts.backbone("llama"), artifacts.pretrained("llama")):
        shutil.rmtree(each)
    lay_backbone(artifacts.root, "llama", scratch("llama", hidden=64))
    open_network._idle.clear()  # of this process, which still knows the first
    file = artifacts.pretrained("llama") / POINTER
    write_json(file, read_json(file) | {"sha256": sha})


def without_adapter(artifacts: Artifacts, folder: Path) -> None:
    shutil.rmtree(folder / "adapter")


def another_format(artifacts: Artifacts, folder: Path) -> None:
    write_json(folder / "member.json", read_json(folder / "member.json") | {"format": 0})


def other_classes(artifacts: Artifacts, folder: Path) -> None:
    write_json(folder / "member.json", read_json(folder / "member.json") | {"classes": ["x", "y"]})


FAULTS: list[tuple[str, Callable[[Artifacts, Path], None], str]] = [
    ("encoder", another_backbone, "fold0: trained on another backbone bert ("),
    ("decoder", another_backbone, "fold0: trained on another backbone llama ("),
    ("encoder", without_tokenizer, "no tokenizer: expected one of"),
    ("encoder", without_weights, "model.safetensors: does not fit its network"),
    ("encoder", truncated_weights, "model.safetensors: does not fit its network"),
    ("encoder", another_network, "model.safetensors: does not fit its network"),
    ("decoder", another_head, "head.safetensors: not the head that belongs to this adapter"),
    ("decoder", another_base, "the adapter does not fit its base"),
    ("decoder", without_adapter, "the adapter does not fit its base"),
    ("encoder", another_format, "member.json: format: expected 2, found 0"),
    ("encoder", other_classes, "member.json: classes: expected ['winner_model_a'"),
]


@pytest.mark.parametrize(("kind", "damage", "expected"), FAULTS, ids=[f"{k}-{d.__name__}" for k, d, _ in FAULTS])
def test_what_does_not_belong_together_is_one_line(
    kind: str, damage: Callable[[Artifacts, Path], None], expected: str, artifacts: Artifacts, lmsys: Competition
) -> None:
    folder = trained(artifacts, {"encoder": encoder(), "decoder": decoder()}[kind], lmsys)
    damage(artifacts, folder)
    with pytest.raises(PodiumError) as caught:
        predict_member(folder, artifacts, asked(artifacts), lmsys)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [another_head, without_adapter])
def test_a_broken_fold_does_not_spoil_the_base_for_the_next(
    damage: Callable[[Artifacts, Path], None], artifacts: Artifacts, lmsys: Competition
) -> None:
    good, bad = (trained(artifacts, decoder(precision="nf4"), lmsys, fold) for fold in (0, 1))
    before = predict_member(good, artifacts, asked(artifacts), lmsys)
    damage(artifacts, bad)
    with pytest.raises(PodiumError):
        predict_member(bad, artifacts, asked(artifacts), lmsys)
    assert np.array_equal(predict_member(good, artifacts, asked(artifacts), lmsys), before)


def test_a_text_longer_than_the_network_can_take_is_refused_before_training(
    artifacts: Artifacts, lmsys: Competition
) -> None:
    def params(member: NetworkSettings) -> Params:
        return replace(load_params(ROOT / "params.yaml"), members={"mine": member})

    fits = resolve("mine", params(decoder()), lmsys, artifacts)
    assert fits["backbone"] == artifacts.backbone_facts("llama")["sha256"]
    with pytest.raises(PodiumError, match=r"members\.mine\.max_tokens: 300 is more than the 256 positions of backbone"):
        resolve("mine", params(decoder(max_tokens=300)), lmsys, artifacts)
    with pytest.raises(PodiumError, match=r"mine\.inference\.long_tokens: 300 is more than the 256 positions of"):
        resolve("mine", params(decoder(inference={"precision": "fp32", "long_tokens": 300})), lmsys, artifacts)
    with pytest.raises(PodiumError, match=r"kind encoder needs an encoder as backbone; llama is an? decoder"):
        resolve("mine", params(encoder(backbone="llama")), lmsys, artifacts)


def test_gradients_are_right_after_an_answer(backbones: Path) -> None:
    """bitsandbytes 0.50 repacks 4-bit weights on an eval forward where the CPU has avx512_bf16."""
    ids = torch.arange(3, 19)[None]

    def gradient(network: Any) -> torch.Tensor:
        inputs = network.get_input_embeddings()(ids).detach().requires_grad_()
        network(inputs_embeds=inputs).last_hidden_state.square().sum().backward()
        assert inputs.grad is not None
        return inputs.grad

    fresh, used = (load_backbone(backbones / "backbones/llama", "nf4", "cpu") for _ in range(2))
    with torch.inference_mode():
        first = used(input_ids=ids).last_hidden_state
    assert torch.equal(gradient(used.train()), gradient(fresh.train()))
    with torch.inference_mode():
        assert torch.equal(used.eval()(input_ids=ids).last_hidden_state, first)


CUSTOM = """
import torch

class Mine(torch.nn.Module):
    def __init__(self, backbone, classes):
        super().__init__()
        self.backbone = backbone
        self.out = torch.nn.Linear(2 * backbone.config.hidden_size, classes)

    def forward(self, input_ids, attention_mask):
        first = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return self.out(first.reshape(-1, 2 * first.shape[1]))

def build(backbone, task, classes):
    assert task.sides == ("a", "b")
    return Mine(backbone, classes)
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_of_ones_own_trains_is_kept_and_predicts(
    precision: str, artifacts: Artifacts, lmsys: Competition
) -> None:
    Path("external").mkdir()
    Path("external/mine.py").write_text(CUSTOM)
    settings = encoder(network="external/mine.py", inference={"precision": precision})
    folder = trained(artifacts, settings, lmsys)
    assert (folder / "network.py").read_text() == CUSTOM
    shutil.rmtree("external")  # a kernel has none
    answer = predict_member(folder, artifacts, asked(artifacts), lmsys)
    tolerance = 1e-6 if precision == "fp32" else 2e-2
    assert np.abs(answer - told(artifacts, "fold0.parquet", lmsys)).max() <= tolerance


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "external/mine.py: expected a function build(backbone, task, classes), found none"),
        ("def build(b, t, c): return 3", "external/mine.py: expected build to return a torch.nn.Module, found int"),
        ("def build(b, t, c): return {}['x']", "external/mine.py: KeyError: 'x'"),
        ("def build(b): return b", "external/mine.py: TypeError: build() takes 1 positional argument"),
        ("def build(:", "external/mine.py: SyntaxError: "),
    ],
)
def test_a_network_of_ones_own_that_fails_is_one_line(
    text: str, expected: str, artifacts: Artifacts, lmsys: Competition
) -> None:
    Path("external").mkdir()
    Path("external/mine.py").write_text(text)
    with pytest.raises(PodiumError) as caught:
        trained(artifacts, encoder(network="external/mine.py"), lmsys)
    assert str(caught.value).startswith(expected)


def test_a_network_of_ones_own_with_wrong_logits_is_one_line(artifacts: Artifacts, lmsys: Competition) -> None:
    Path("external").mkdir()
    Path("external/mine.py").write_text(CUSTOM.replace(", classes)\n\n    def", ", 2)\n\n    def"))
    with pytest.raises(PodiumError, match=r"external/mine\.py: expected \(rows, 3\) logits, found"):
        trained(artifacts, encoder(network="external/mine.py"), lmsys)
