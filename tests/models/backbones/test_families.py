"""Every family of networks that a member may have, tiny and random: from its published folder to packaged answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from families import DECODERS, ENCODERS, FAMILIES, WORDS, Family, publish
from learners import CPU, fitted
from networks import HARD, decoder, encoder, pretrain_settings
from safetensors.torch import load_file, save_file
from support import preference_rows
from tokenizers import Tokenizer
from torch import nn

from pipeline.artifacts import FACTS, POINTER, Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.text import MARKERS, Encoded
from pipeline.data.tokens import tokens_of
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.inference.forward import batch_logits, batch_tensors
from pipeline.inference.network_member import encoded_rows
from pipeline.inference.predict import predict_member
from pipeline.kinds import KINDS
from pipeline.members.decoder import adapted_base
from pipeline.members.encoder import draw_anew, trainable_backbone
from pipeline.models.backbones.foresight import foreseen
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.backbones.obtain import obtain
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import decoder_network, encoder_network
from pipeline.models.saved_network import save_decoder, save_encoder
from pipeline.package.build import _pack_backbone
from pipeline.settings.backbones import Folder
from pipeline.settings.finetuning import Inference
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.gradients import Learner
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.pooled_check import check_pooled_states
from pipeline.training.pretrain import PretrainStart, pretrain

ROWS = preference_rows(16, seed=4)
LONG = 64
"""Tokens per sequence: some rows have more, and some networks no more positions."""
SETTINGS = {kind: made(input="siamese", max_tokens=LONG) for kind, made in (("encoder", encoder), ("decoder", decoder))}


@dataclass
class Tried:
    """A family's network on its way from the published folder to a packaged fold model."""

    family: Family
    published: Path
    artifacts: Artifacts
    settings: Any
    facts: dict[str, Any]
    tokenizer: Any
    learned: Supervised
    """ROWS."""
    network: nn.Module
    """Trained a few steps, as it was when it was saved."""
    unmoved: list[str]
    """Weights that should have learned, and did not."""
    logits: np.ndarray
    """What it says of ROWS, all in one batch."""

    def says(self, rows: list[int], encoded: Encoded | None = None) -> np.ndarray:
        read = encoded or self.learned.encoded
        return batch_logits(self.network, read, np.array(rows), self.learned.pad_id, "cpu").numpy()


def tried(name: str, root: Path, competition: Competition, precision: str = "fp32", **training: Any) -> Tried:
    """Publishes, obtains, trains and saves a network of the family `name`."""
    family, kind = FAMILIES[name], "encoder" if name in ENCODERS else "decoder"
    settings: Any = replace(SETTINGS[kind], backbone=name, inference=Inference(precision=precision))  # type: ignore[arg-type]
    settings = replace(settings, training=replace(settings.training, **training))
    publish(family, root / "published")
    artifacts = Artifacts(root / "artifacts")
    folder, model = artifacts.backbone(name), artifacts.model("mine", 0)
    folder.mkdir(parents=True)
    obtain(name, Folder(source="path", path=str(root / "published")), list, folder)
    facts, tokenizer = read_json(folder / FACTS), load_tokenizer(folder)
    write_json(artifacts.pretrained(name) / POINTER, facts)
    torch.manual_seed(0)
    network: nn.Module
    if kind == "encoder":
        backbone = trainable_backbone(folder, settings, "cpu")
        network = encoder_network(backbone, settings, competition.kind, 3, None)
    else:
        network = decoder_network(adapted_base(folder, settings, "cpu"), settings, competition)
    encoded, labels = encoded_rows(ROWS, settings, tokenizer, competition), ROWS["label"].to_numpy().astype(np.int64)
    learned = Supervised(encoded, labels, competition.family, int(tokenizer.pad_token_id), "cpu", 8, 4096, 0.0, 0)
    check_pooled_states(network, learned, name)
    before = {key: each.detach().clone() for key, each in network.named_parameters() if each.requires_grad}
    fitted(Learner(network.train(), learned, settings.training, CPU, CPU.scaler()), root / "checkpoint")
    unmoved = [key for key, each in network.named_parameters() if key in before and torch.equal(each, before[key])]
    logits = batch_logits(network, encoded, np.arange(len(ROWS)), learned.pad_id, "cpu").numpy()
    model.mkdir(parents=True)
    if kind == "encoder":
        save_encoder(network, [], settings, competition, facts["sha256"], None, model)
    else:
        save_decoder(network, [], settings, competition, facts["sha256"], model)
    return Tried(family, root / "published", artifacts, settings, facts, tokenizer, learned, network, unmoved, logits)


def that_learn(keys: Iterable[str]) -> list[str]:
    """Those weights that must: what a bias adds to all keys, softmax takes away, and poolers are idle."""
    return [key for key in keys if not any(part in key for part in ("key.bias", ".k.bias", "pooler."))]


def packaged(one: Tried, competition: Competition, folder: Path) -> np.ndarray:
    """What the model says of ROWS once it has been packaged, (rows, classes)."""
    package, kind = Artifacts(folder), KINDS[one.settings.kind]
    _pack_backbone(one.artifacts, one.settings.backbone, kind, one.settings.inference.precision, package)
    shutil.copytree(one.artifacts.model("mine", 0), package.model("mine", 0))
    return predict_member(package.model("mine", 0), package, ROWS, competition)


@pytest.fixture(scope="module", params=FAMILIES)
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lmsys: Competition) -> Tried:
    return tried(request.param, tmp_path_factory.mktemp(request.param), lmsys)


def test_ids_are_those_of_the_published_tokenizer(one: Tried) -> None:
    own = Tokenizer.from_file(str(one.published / "tokenizer.json"))
    own.encode_special_tokens = True
    texts = [text for text in [*HARD, *WORDS[:20]] if MARKERS[0] not in text]
    found = tokens_of(pl.Series(texts), one.tokenizer, None)
    assert [ids.tolist() for ids in found] == [own.encode(text, add_special_tokens=False).ids for text in texts]
    assert one.tokenizer.pad_token == (one.family.tokens.get("pad_token") or one.tokenizer.eos_token) is not None


def test_the_backbone_is_described_before_and_after_it_is_made(one: Tried) -> None:
    expected = "encoder" if one.family in ENCODERS.values() else "decoder"
    assert (one.facts["family"], one.facts["positions"]) == (expected, one.family.positions)
    before = foreseen("x", Folder(source="path", path=str(one.published)), one.artifacts)
    assert {key: before[key] for key in ("family", "hidden", "layers", "positions")} == {
        key: one.facts[key] for key in ("family", "hidden", "layers", "positions")
    }


def test_no_text_is_longer_than_the_network_reads_and_special_tokens_stay(one: Tried, lmsys: Competition) -> None:
    limit, words, tokenizer = one.family.positions or 128, " ".join(WORDS), one.tokenizer
    rows = ROWS.head(2).with_columns(pl.Series("a", [[words], [words]], dtype=pl.List(pl.String)))
    encoded = encoded_rows(rows, replace(one.settings, max_tokens=limit), tokenizer, lmsys)
    assert limit - 8 <= len(encoded.ids[0]) <= limit and len(encoded.ids[1]) < limit and encoded.cut.all()
    assert np.isfinite(one.says([0, 1], encoded)).all()
    for ids in encoded.ids:
        if one.settings.kind == "encoder":
            assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
            assert (ids == tokenizer.sep_token_id).sum() == 2  # behind the prompt, and behind the answer
        else:
            assert tokenizer.bos_token_id in (None, ids[0])
            assert tokenizer.decode(ids.tolist()).endswith("Quality:")


def test_a_longer_text_could_not_be_read_or_would_change_the_answers_beside_it(one: Tried) -> None:
    most, limit = one.family.config.get("max_position_embeddings"), one.family.positions
    if limit is None or limit == most or one.family.config["model_type"] == "gemma3":
        return  # the config says it all
    ids = one.learned.encoded.ids[0]
    longer = np.concatenate([ids, np.full(limit + 1 - len(ids), ids[1])])
    both = Encoded([ids, longer], 1, {}, np.zeros(2, dtype=bool))
    network: Any = one.network

    def states(rows: list[int]) -> torch.Tensor:
        with torch.no_grad():
            inputs = batch_tensors(both, np.array(rows), one.learned.pad_id, "cpu")
            return network.backbone(*inputs).last_hidden_state[0, : len(ids)]

    if one.settings.kind == "encoder":
        with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
            states([1])
    else:
        assert (states([0]) - states([0, 1])).abs().max() > 1e-3


def test_padding_changes_no_answer(one: Tried) -> None:
    assert len(set(one.learned.encoded.lengths())) > 4
    for row in range(6):
        assert np.abs(one.says([row]) - one.logits[row]).max() < 1e-5


def test_everything_that_should_learn_does(one: Tried) -> None:
    assert that_learn(one.unmoved) == []
    assert one.logits.std(axis=0).max() > 1e-3


def test_the_packaged_model_gives_the_answers_of_the_trained_one(
    one: Tried, lmsys: Competition, tmp_path: Path
) -> None:
    expected = lmsys.family.means(one.logits.astype(np.float64))
    assert np.abs(packaged(one, lmsys, tmp_path) - expected).max() < 1e-5


def test_what_an_architecture_cannot_do_is_one_line(one: Tried) -> None:
    frugal = replace(one.settings, training=replace(one.settings.training, gradient_checkpointing=True))
    folder = one.artifacts.backbone(one.settings.backbone)
    if one.settings.kind == "encoder" and one.facts["architecture"] == "mpnet":
        with pytest.raises(
            PodiumError, match=r"^training\.gradient_checkpointing: mpnet does not know it: leave it out"
        ):
            trainable_backbone(folder, frugal, "cpu")
    elif one.settings.kind == "encoder":
        assert trainable_backbone(folder, frugal, "cpu").is_gradient_checkpointing


def test_a_part_that_reads_text_under_other_names_is_one_line(tmp_path: Path) -> None:
    publish(FAMILIES["gemma-3"], tmp_path / "published")
    file = tmp_path / "published" / "model.safetensors"
    named = {name.replace("language_model", "words"): each for name, each in load_file(file).items()}
    save_file(named, file, {"format": "pt"})
    (tmp_path / "made").mkdir()
    expected = r"^backbones\.x: .*/published: its weights lack \d+ tensors of the part that reads text, first model\."
    with pytest.raises(PodiumError, match=expected):
        obtain("x", Folder(source="path", path=str(tmp_path / "published")), list, tmp_path / "made")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["nf4", "int8", "fp16"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_rounded_base_is_the_same_in_training_and_package(
    name: str, precision: str, lmsys: Competition, tmp_path: Path
) -> None:
    one = tried(name, tmp_path / "one", lmsys, precision)
    expected = lmsys.family.means(one.logits.astype(np.float64))
    assert np.abs(packaged(one, lmsys, tmp_path / "package") - expected).max() < (1e-5 if precision == "nf4" else 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mpnet"])
def test_checkpointing_learns_the_same(name: str, lmsys: Competition, tmp_path: Path) -> None:
    plain, frugal = (tried(name, tmp_path / str(on), lmsys, gradient_checkpointing=on).logits for on in (False, True))
    assert np.abs(plain - frugal).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_the_top_layer_is_found(name: str, lmsys: Competition, tmp_path: Path) -> None:
    folder = tried(name, tmp_path, lmsys).artifacts.backbone(name)
    kept, fresh = (load_backbone(folder, "fp32", "cpu") for _ in range(2))
    draw_anew(fresh, 1)
    moved = [key for key, each in fresh.state_dict().items() if not torch.equal(each, kept.state_dict()[key])]
    assert moved and all(re.search(r"layers?\.1\.", key) for key in moved)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_text_alone_moves_every_weight(name: str, lmsys: Competition, tmp_path: Path) -> None:
    before, after = tried(name, tmp_path, lmsys).artifacts.backbone(name), tmp_path / "after"
    after.mkdir()
    settings = pretrain_settings(epochs=1, max_tokens=LONG, head_steps=1)
    pretrain(before, ROWS, PretrainStart("x", settings), lmsys, after, Checkpoint(tmp_path / "of text"))
    old, new = (load_backbone(folder, "fp32", "cpu").state_dict() for folder in (before, after))
    assert old.keys() == new.keys()
    assert that_learn(key for key in old if torch.equal(old[key], new[key])) == []
