"""Small real backbones for the tests, and one in the form in which microsoft/deberta-v3-* are published."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import sentencepiece
import torch
from safetensors.torch import load_file
from support import preference_rows, write_artifacts

from pipeline.artifacts import FACTS, POINTER, Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.files import read_json, write_json
from pipeline.members.context import Source, Start
from pipeline.models.backbones.obtain import obtain
from pipeline.models.backbones.scratch import build_scratch
from pipeline.settings.backbones import Backbone, Pretrain, Scratch
from pipeline.settings.finetuning import NetworkSettings, Training
from pipeline.validation import validated

TEXTS = [
    f"Question {i}: what is a good answer… for example number {i}?\n\nИ ещё: 你好世界 مرحبا यह naïve ﬁle"
    for i in range(200)
]
HARD = [
    "plain words",
    "two\nlines\n\nand a [NL] marker[CUT]glued to words",
    "  spaces   around\tand tabs  ",
    "Привет, 你好世界! مرحبا बहुत ☃🙂",
    "… ﬁle ｆｕｌｌ x²",
    "",
]


def scratch(architecture: str, **changed: Any) -> Scratch:
    """Settings of a network that is built in milliseconds."""
    small = {"vocabulary": 400, "hidden": 32, "layers": 1, "heads": 2, "positions": 64, "seed": 3}
    return validated(Scratch, {"source": "scratch", "architecture": architecture} | small | changed, "scratch")


def obtained(settings: Backbone, folder: Path) -> dict[str, Any]:
    """backbone.json of the backbone `small`, obtained into `folder`, which is made."""
    folder.mkdir()
    obtain("small", settings, lambda: TEXTS, folder)
    return json.loads((folder / "backbone.json").read_text())


def lay_backbone(root: Path, name: str, settings: Backbone) -> None:
    """Backbone `name` below `root` (artifacts), as its stages leave it where pretraining changes nothing."""
    artifacts = Artifacts(root)
    folder = artifacts.backbone(name)
    folder.mkdir(parents=True)
    rows = preference_rows(60)
    words = [turn for field in ("prompt", "a", "b") for turns in rows[field] for turn in turns]
    obtain(name, settings, lambda: TEXTS + words, folder)
    write_json(artifacts.pretrained(name) / POINTER, read_json(folder / FACTS))


def published_deberta(folder: Path) -> sentencepiece.SentencePieceProcessor:
    """Fills `folder` as microsoft/deberta-v3-* are: fp16 .bin weights under `deberta.`, spm.model, further files.

    Returns the tokenizer's own library on its vocabulary.
    """
    folder.mkdir()
    build_scratch(scratch("deberta-v3"), TEXTS, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()
    halves = {f"deberta.{key}": tensor.half() for key, tensor in tensors.items()}
    torch.save(halves | {"lm_predictions.lm_head.bias": torch.zeros(3)}, folder / "pytorch_model.bin")
    model = io.BytesIO()
    pieces = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=300, hard_vocab_limit=False, minloglevel=2,
        **ids, **pieces,
    )  # fmt: skip
    (folder / "spm.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    for name in ("pytorch_model.generator.bin", "tf_model.h5", "README.md", "onnx/model.onnx", "original/vocab.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not wanted")
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


SHORT = {
    "schedule": {"rate": 3e-3},
    "batches": {"rows_per_step": 8, "tokens_per_batch": 1024},
    "precision": "fp32",
    "dropout": 0.0,
}
"""A short fine-tuning in fp32 without dropout, as params.yaml would say it."""


def training_settings(**changed: Any) -> Training:
    """Settings of a short fine-tuning, with some `changed` as params.yaml would say them."""
    return validated(Training, SHORT | changed, "training")


def encoder(training: dict[str, Any] | None = None, **changed: Any) -> Any:
    """Settings of a member on the backbone `bert`, with some `changed` as params.yaml would say them."""
    given = {"kind": "encoder", "backbone": "bert", "max_tokens": 64, "training": SHORT | (training or {})}
    return member_settings(given | changed)


def decoder(training: dict[str, Any] | None = None, precision: str = "fp32", **changed: Any) -> Any:
    """Settings of a member on the backbone `llama`, with some `changed` as params.yaml would say them."""
    given = {"kind": "decoder", "backbone": "llama", "max_tokens": 96, "training": SHORT | (training or {})}
    given |= {"lora": {"rank": 4, "dropout": 0.0}, "inference": {"precision": precision}}
    return member_settings(given | changed)


def start_of(
    name: str,
    settings: NetworkSettings,
    competition: Competition,
    root: Path,
    auxiliary: Mapping[str, Source] = MappingProxyType({}),
) -> Start:
    """The start that the start stage writes below `root` (artifacts), as far as training reads it; written there."""
    artifacts = Artifacts(root)
    backbone = artifacts.backbone_facts(settings.backbone)["sha256"]
    start = Start(name, settings, competition, 1, backbone=backbone, max_attempts=2, auxiliary=dict(auxiliary))
    write_json(artifacts.start(name), asdict(start))
    return start


def ready(root: Path, rows: pl.DataFrame, competition: Competition, folds: np.ndarray, backbones: Path) -> Path:
    """artifacts/ under `root` with everything that fine-tuning reads but the start files."""
    artifacts = write_artifacts(root, rows, competition, folds)
    for name in ("backbones", "pretrained"):
        shutil.copytree(backbones / name, artifacts / name)
    return artifacts


def pretrain_settings(**changed: Any) -> Pretrain:
    """Settings of a short pretraining, with some `changed` as params.yaml would say them."""
    short = {"schedule": {"rate": 1e-3}, "batches": {"rows_per_step": 16, "tokens_per_batch": 2000}, "max_tokens": 128}
    return validated(Pretrain, short | changed, "pretrain")
