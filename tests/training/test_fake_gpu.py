"""A training step as a GPU would take it, for the published networks' kinds; helpers/fake_gpu.py says what is real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import CONFIGS, GPU, Watch, lead_to_gpu_paths, one_device_each, pretend, questions
from fold_models import FOLDS, ROWS, trained
from learners import learner_of
from networks import decoder, encoder, ready, training_settings
from support import preference_rows
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.members import decoder as members_decoder
from pipeline.members.decoder import adapted_base, with_adapters
from pipeline.models.backbones.loading import accelerated, load_backbone
from pipeline.models.backbones.masks import use_right_padding
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.deberta import attention_cpu, attention_gpu
from pipeline.models.deberta.packing import LENGTHS
from pipeline.models.network import decoder_network, encoder_network
from pipeline.training import loop
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device, training_device
from pipeline.training.loop import TrainingRun, fit
from pipeline.training.objectives.language import CausalModel, Language, MaskedModel
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.optim import adamw, backbone_name
from pipeline.training.prior import Prior

ENCODERS = ("deberta-v3", "modernbert")
DECODERS = tuple(name for name in CONFIGS if name not in ENCODERS)


def inputs(rows: int, length: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Ids and mask of rows that grow shorter, as batch_tensors gives them."""
    lengths = length - np.arange(rows) * (length // (2 * rows))
    mask = torch.from_numpy((np.arange(length) < lengths[:, None]).astype(np.int64)).to(device)
    setattr(mask, LENGTHS, lengths)
    return torch.full((rows, length), 7, device=device), mask


def checkpointed(on: bool) -> dict[str, Any]:
    return {"gradient_checkpointing": on}


@pytest.mark.parametrize(
    ("name", "again"), [*((name, True) for name in CONFIGS), ("deberta-v3", False), ("llama-3", False)]
)
def test_a_step_of_the_optimiser_mixes_no_devices(
    name: str, again: bool, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.optim.AdamW  # the fused one knows no meta device
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused, **usual: plain(groups, **usual))
    config = AutoConfig.for_model(**CONFIGS[name], use_cache=False)
    with one_device_each(monkeypatch):
        with torch.device("meta"):
            backbone: Any = AutoModel.from_config(config, dtype=torch.float32)
            use_right_padding(backbone)
            if name in ENCODERS:
                settings = encoder(checkpointed(again))
                if again:
                    backbone.gradient_checkpointing_enable()
                network = encoder_network(accelerated(backbone), settings, lmsys.kind, 3, None)
            else:
                settings = decoder(checkpointed(again))
                network = decoder_network(with_adapters(backbone, settings), settings, lmsys)
        optimizer = adamw(network, settings.training)
        learning = [each for each in network.parameters() if each.requires_grad]
        network.train()(*inputs(4, 40, "meta")).logsumexp(dim=1).sum().backward()
        given = {id(each) for each in learning if each.grad is not None}
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
    assert len(given) >= 0.9 * len(learning)
    assert {state["exp_avg"].device.type for state in optimizer.state.values()} == {"meta"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with random weights for each configuration."""
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    for name, config in CONFIGS.items():
        AutoModel.from_config(AutoConfig.for_model(**config)).save_pretrained(root / name)
    return {name: root / name for name in CONFIGS}


def made(
    name: str, folder: Path, precision: str, again: bool, device: Device, competition: Competition
) -> torch.nn.Module:
    """A network in training, as the members build it."""
    if name in ENCODERS:
        backbone = accelerated(AutoModel.from_pretrained(folder, dtype=torch.float32))
        network = encoder_network(backbone, encoder(), competition.kind, 3, None)
    else:
        settings = decoder(checkpointed(again), precision)
        network = decoder_network(adapted_base(folder, settings, GPU, device.half), settings, competition)
    return network.train()


def fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float, scale: float) -> Tensor:
    """Attention under a learned bias, with what the memory-efficient kernel asks for; a CPU has only the plain one."""
    assert query.dtype == key.dtype == value.dtype == attn_mask.dtype and attn_mask.stride(-1) == 1
    return (query @ key.transpose(2, 3) * scale + attn_mask).softmax(dim=3).to(value.dtype) @ value


HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("name", "precision"),
    [("deberta-v3", "fp32"), ("modernbert", "fp32"), *((name, "nf4") for name in DECODERS), ("llama-3", "int8")],
)
def test_under_autocast_every_product_is_taken_in_half_precision(
    name: str,
    precision: str,
    half: str,
    folders: dict[str, Path],
    lmsys: Competition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch)
    lead_to_gpu_paths(monkeypatch)
    monkeypatch.setattr(attention_cpu, "attend", attention_gpu.attend)
    monkeypatch.setattr(attention_gpu, "scaled_dot_product_attention", fused)
    device = Device("cpu", half)
    network = made(name, folders[name], precision, False, device, lmsys)
    with Watch() as watch:
        with device.forward():
            loss = network(*inputs(4, 40)).logsumexp(dim=1).sum()
        loss.backward()
    assert watch.products.total() > 20 and not watch.unordered
    assert set(watch.products) == {(HALVES[half], HALVES[half])}


@pytest.mark.parametrize("way", ["cpu", "gpu"])
def test_checkpointing_drops_the_inputs_of_eight_bits_as_of_four(
    way: str, folders: dict[str, Path], lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    if way == "gpu":
        lead_to_gpu_paths(monkeypatch)
    kept: dict[tuple[str, bool], int] = {}
    for precision in ("nf4", "int8"):
        for again in (False, True):
            device = Device("cpu", "bf16")
            network = made("llama-3", folders["llama-3"], precision, again, device, lmsys)
            with Watch() as watch, device.forward():
                loss = network(*inputs(8, 128)).logsumexp(dim=1).sum()
            del network  # the graph alone holds what is left
            kept[precision, again] = watch.alive()
            loss.backward()
    assert kept["nf4", True] < 0.5 * kept["nf4", False]
    assert kept["int8", True] <= 1.2 * kept["nf4", True]
    assert kept["int8", False] <= 1.2 * kept["nf4", False]


def test_equal_runs_are_asked_to_give_equal_bits_without_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    try:
        assert training_device("bf16", 1) == Device(GPU, "bf16")
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_decoder_trains_on_a_base_in_the_half_precision_of_its_autocast(
    precision: str, tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Exception):
        pass

    def spy(folder: Path, settings: Any, device: str, half: torch.dtype) -> None:
        raise Seen(device, half)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(members_decoder, "adapted_base", spy)
    monkeypatch.setattr("pipeline.members.finetune.training_device", lambda asked, threads: Device(GPU, asked))
    monkeypatch.setattr(Supervised, "batch", lambda *given: None)
    artifacts = Artifacts(ready(tmp_path, preference_rows(ROWS), lmsys, FOLDS, backbones))
    with pytest.raises(Seen) as seen:
        trained(artifacts, decoder({"precision": precision}, "nf4"), lmsys)
    assert seen.value.args == (GPU, torch.bfloat16 if precision == "bf16" else torch.float16)


def waits(run: TrainingRun, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the host would wait for a GPU in each step: from one step's answer to the next.

    What is asked before the first and after the last is asked once a run. Nothing may have no deterministic form there.
    """
    asked = []
    step = loop.fetched

    def counted(tensors: Any) -> Any:
        found = step(tensors)
        asked.append(counter.total())
        return found

    monkeypatch.setattr(loop, "fetched", counted)
    with questions(monkeypatch) as counter, Watch() as watch:
        fit(run)
    assert len(asked) > 2
    assert not watch.unordered
    return np.diff(asked).tolist()


@pytest.mark.parametrize(
    ("kind", "precision", "changed"),
    [
        (
            "encoder",
            "fp16",
            {"ema": 0.1, "dropout": 0.1, "r_drop": {"weight": 1.0}, "fgm": {"on": "output", "radius": 0.1}},
        ),
        ("encoder", "bf16", {"smart": {}, "proximal": {}, "dsgd": {}, "mixout": {}}),
        ("encoder", "fp16", {"awp": {"step": 1e-3}}),
        ("encoder", "bf16", {"fgm": {"on": "table"}}),
        ("decoder", "fp16", {"gradient_checkpointing": True, "stable_lora": {}}),
    ],
)
def test_a_step_makes_the_host_wait_for_the_gpu_once(
    kind: str,
    precision: str,
    changed: dict[str, Any],
    backbones: Path,
    lmsys: Competition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention_cpu, "attend", attention_gpu.attend)
    made_of = learner_of(backbones, lmsys, kind, 256, 24, changed)  # several batches a step
    learned = made_of.objective
    assert isinstance(learned, Supervised) and all(len(batches) > 1 for batches in learned.epoch(0))
    use_right_padding(made_of.network.get_submodule(backbone_name(made_of.network)))
    run = TrainingRun(
        *(made_of.network, learned, made_of.settings, Device("cpu", precision), Checkpoint(tmp_path / "run"), "x"),
        prior=Prior(learned.family, learned.labels),
    )
    assert max(waits(run, monkeypatch)) <= 1


@pytest.mark.parametrize("share", [0.15, None], ids=["masked", "next-token"])
def test_a_step_of_pretraining_makes_it_wait_once(
    share: float | None, backbones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_cpu, "attend", attention_gpu.attend)
    folder = backbones / "backbones" / ("llama" if share is None else "bert")
    sequences = [np.arange(3, 3 + length) for length in (40, 33, 20, 9) * 6]
    learned = Language(sequences, load_tokenizer(folder), share, 8, 200, 0, "cpu")
    if share is None:
        network: torch.nn.Module = CausalModel(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    else:
        network = MaskedModel(load_backbone(folder, "fp32", "cpu"))
    use_right_padding(network.get_submodule(backbone_name(network)))
    checkpoint = Checkpoint(tmp_path / "run")
    run = TrainingRun(network, learned, training_settings(epochs=1), Device("cpu", "bf16"), checkpoint, "x")
    assert max(waits(run, monkeypatch)) <= 1


def test_what_a_batch_sends_to_a_gpu_comes_from_pinned_memory(
    backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: set[int] = set()
    sent: list[bool] = []
    move = torch.Tensor.to

    def moved(tensor: Tensor, *given: Any, **options: Any) -> Tensor:
        if given[:1] != (GPU,):
            return move(tensor, *given, **options)
        sent.append(id(tensor) in pinned and options == {"non_blocking": True})
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (pinned.add(id(tensor)), tensor)[1])
    monkeypatch.setattr(torch.Tensor, "to", moved)
    supervised = learner_of(backbones, lmsys, "encoder", 256, 24, {}).objective
    assert isinstance(supervised, Supervised)
    tokenizer = load_tokenizer(backbones / "backbones" / "bert")
    language = Language([np.arange(3, 19)] * 2, tokenizer, 0.15, 2, 64, 1, GPU)
    for objective in (replace(supervised, device=GPU), language):
        objective.batch(np.arange(2), 0)
    assert len(sent) == 7 and all(sent)
