from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import HARD, decoder, encoder, pretrain_settings, ready, start_of
from safetensors.torch import load_file
from support import preference_rows
from transformers import AutoModel, AutoModelForCausalLM

from pipeline.artifacts import FACTS, Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import Split
from pipeline.files import read_json, write_json
from pipeline.inference.predict import predict_member
from pipeline.members.fold import train_fold
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.backbones.obtain import contents_hash
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.training import pretrain as training
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.loop import Trained, TrainingRun
from pipeline.training.pretrain import PretrainStart
from stages import pretrain as stage


@pytest.fixture
def artifacts(tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return ready(tmp_path, preference_rows(40), lmsys, np.repeat([0, 1, -1], [12, 20, 8]), backbones)


def pretrained(artifacts: Path, name: str, **changed: Any) -> Path:
    """The folder of backbone `name` after its pretraining stage."""
    start = PretrainStart(f"pretrain {name}", pretrain_settings(**changed))
    write_json(artifacts / "start_pretrain" / f"{name}.json", asdict(start))
    stage.main(name)
    return Artifacts(artifacts).base(name)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_it_leaves_a_whole_backbone_that_has_learned(name: str, artifacts: Path) -> None:
    before = artifacts / "backbones" / name
    after = pretrained(artifacts, name, epochs=2)
    assert after == artifacts / "pretrained" / name
    kind = AutoModel if name == "bert" else AutoModelForCausalLM
    _, report = kind.from_pretrained(after, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    one, other = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert one.keys() == other.keys()
    assert {each.dtype for each in other.values()} == {torch.float32}
    assert sum(not torch.equal(one[key], other[key]) for key in one) > len(one) * 0.8
    assert load_tokenizer(after)(HARD)["input_ids"] == load_tokenizer(before)(HARD)["input_ids"]
    facts = Artifacts(artifacts).backbone_facts(name)
    assert facts["sha256"] == contents_hash(after) != read_json(before / FACTS)["sha256"]
    assert facts | {"sha256": ""} == read_json(before / FACTS) | {"sha256": ""}
    told = read_json(after / "pretraining.json")
    assert told["perplexity_after"] < told["perplexity_before"] and told["curve"]


def test_what_fine_tuning_loads_is_what_pretraining_saved(artifacts: Path) -> None:
    after = pretrained(artifacts, "bert", epochs=1)
    saved, loaded = load_file(after / "model.safetensors"), load_backbone(after, "fp32", "cpu").state_dict()
    assert saved.keys() <= loaded.keys()
    assert all(torch.equal(each, loaded[name]) for name, each in saved.items())


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_member_is_fine_tuned_on_it(name: str, artifacts: Path, lmsys: Competition) -> None:
    pretrained(artifacts, name, epochs=1)
    settings = encoder() if name == "bert" else decoder(precision="nf4")
    start, rows = start_of("mine", settings, lmsys, artifacts), preference_rows(40)
    assert train_fold(Split(rows[12:32], rows[:12], rows[32:]), start, 0, Artifacts(artifacts)) is not None
    answer = predict_member(artifacts / "members/mine/fold0", Artifacts(artifacts), rows[:12], lmsys)
    assert np.isfinite(answer).all()


def test_the_fresh_head_is_warmed_up_alone(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, dict[str, None], int]] = []
    own = training.fit

    def spy(run: TrainingRun) -> Trained:
        before = {name: each.detach().clone() for name, each in run.network.named_parameters()}
        trained = own(run)
        changed = [name for name, each in run.network.named_parameters() if not torch.equal(each, before[name])]
        seen.append((run.part, dict.fromkeys(changed), len(trained.record.losses)))
        return trained

    monkeypatch.setattr(training, "fit", spy)
    pretrained(artifacts, "bert", epochs=2, head_steps=3)
    (first, changed, steps), (second, later, _) = seen
    assert (first, steps, second) == ("head", 3, "train")
    assert changed and not any(name.startswith("backbone.") for name in changed)
    assert any(name.startswith("backbone.") for name in later)


def test_no_epochs_pass_the_backbone_through(artifacts: Path) -> None:
    assert pretrained(artifacts, "bert", epochs=0) == artifacts / "backbones" / "bert"
    assert [file.name for file in (artifacts / "pretrained/bert").iterdir()] == ["unchanged.json"]
    assert Artifacts(artifacts).backbone_facts("bert") == read_json(artifacts / "backbones/bert" / FACTS)
    assert read_json(Path("metrics/pretrain/bert.json")) == {"epochs": 0}


def test_the_same_pretraining_twice_gives_the_same_bytes(artifacts: Path) -> None:
    first = contents_hash(pretrained(artifacts, "llama", epochs=1))
    assert contents_hash(pretrained(artifacts, "llama", epochs=1)) == first
    assert contents_hash(pretrained(artifacts, "llama", epochs=1, seed=1)) != first


def test_nothing_of_a_checkpoint_stays(artifacts: Path) -> None:
    pretrained(artifacts, "bert", epochs=1)
    assert [file.name for file in Path("work/checkpoints").iterdir()] == ["pretrain@bert.lock"]
    assert Checkpoint(Path("work/checkpoints/pretrain@bert")).load("train") is None
