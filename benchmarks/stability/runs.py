"""One run of the benchmark, and the encoder that all of them start from; the code is that of encoder members."""

from __future__ import annotations

import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import nn

from benchmarks.stability.protocol import (
    BACKBONE,
    MEMBER,
    PRETRAINING,
    RATES,
    SETS,
    Parts,
    Rows,
    parts_of,
    pretraining_texts,
)
from benchmarks.stability.strategies import STRATEGIES
from pipeline.artifacts import FACTS
from pipeline.data.text import encode
from pipeline.files import atomic_folder, write_json
from pipeline.inference.forward import batch_logits
from pipeline.members.encoder import trainable_backbone
from pipeline.models.backbones.obtain import contents_hash
from pipeline.models.backbones.scratch import build_scratch
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import encoder_network
from pipeline.models.voting import Committee
from pipeline.settings.backbones import Pretrain, Scratch
from pipeline.settings.encoder import Encoder
from pipeline.settings.finetuning import Training
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import training_device
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.pretrain import PretrainStart, pretrain
from pipeline.training.restarts import Job, train
from pipeline.training.techniques.deni import updates
from pipeline.validation import validated


class Asked(NamedTuple):
    """One cell of the benchmark."""

    strategy: str
    data: str
    rate: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.data}-{self.rate}-{self.strategy.replace(' ', '_')}-{self.seed}"


def run(asked: Asked, encoder: Path, work: Path) -> dict[str, Any]:
    """Trains on one thread and scores both halves; the score half's probabilities go into a file below `work`."""
    began = time.monotonic()
    about, parts, strategy = SETS[asked.data], _parts(asked.data), STRATEGIES[asked.strategy]
    competition = about.competition
    settings = strategy.settings(RATES[asked.rate], asked.seed)
    member = Encoder(**MEMBER, training=settings)
    device = training_device("fp32", 1)

    def build() -> nn.Module:
        backbone = trainable_backbone(encoder, member, device.name)
        return encoder_network(backbone, member, competition.kind, about.classes, None).to(device.name)

    def objective(rows: Rows, smoothing: float = 0.0) -> Supervised:
        tokenizer = load_tokenizer(encoder)
        encoded = encode(rows.texts, tokenizer, "encoder", competition, True, member.max_tokens)
        sizes = settings.batches.rows_per_step, settings.batches.tokens_per_batch
        pad_id = int(tokenizer.pad_token_id)
        order = settings.seeds.order
        return Supervised(encoded, rows.labels, competition.family, pad_id, device.name, *sizes, smoothing, order)

    learned, choice = objective(parts.learned, settings.label_smoothing), objective(parts.choice)
    state = Checkpoint(work / "checkpoints" / asked.name)
    judge = choice if settings.inner else None
    job = Job(build, learned, judge, settings, strategy.attempts, device, state, asked.name)
    trained = train(job)
    shutil.rmtree(state.folder, ignore_errors=True)
    trained.network.eval()
    cost = _updates(trained.attempts, settings, learned) * strategy.passes
    told: dict[str, Any] = {"attempts": trained.attempts, "cost": cost}
    network = trained.network
    if trained.voters:
        told["main"] = scores(parts.score.labels, _probabilities(network, objective(parts.score), about.classes))
        network = Committee(network, trained.voters, competition.family)
    for half, rows in (("choice", choice), ("score", objective(parts.score))):
        probabilities = _probabilities(network, rows, about.classes)
        told[half] = scores(rows.labels, probabilities)
    (work / "probabilities").mkdir(exist_ok=True)
    np.save(work / "probabilities" / f"{asked.name}.npy", probabilities.astype(np.float32))
    return asked._asdict() | told | {"seconds": round(time.monotonic() - began, 1)}


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns macro F1, accuracy and log loss, and whether it failed by either definition.

    Mosbach et al. 2020: no better than the majority class; Pecher et al. 2024: macro F1 below 1 / classes.
    """
    classes = probabilities.shape[1]
    answers = probabilities.argmax(axis=1)
    f1 = float(f1_score(labels, answers, average="macro", labels=range(classes), zero_division=0.0))
    accuracy = float(accuracy_score(labels, answers))
    majority = float(np.bincount(labels).max() / len(labels))
    clipped = np.clip(probabilities, 1e-7, 1.0)
    loss = float(log_loss(labels, clipped / clipped.sum(axis=1, keepdims=True), labels=range(classes)))
    failed = {"majority": accuracy <= majority, "chance": f1 < 1 / classes}
    return {"f1": f1, "accuracy": accuracy, "log_loss": loss, "failed": failed}


def encoder_in(work: Path) -> Path:
    """Returns the small pretrained encoder, made where it is missing: about ten minutes on two cores."""
    folder = work / "encoder"
    if folder.exists():
        return folder
    texts = pretraining_texts()
    scratch = validated(Scratch, {"source": "scratch"} | BACKBONE, "BACKBONE")
    start = PretrainStart("encoder", validated(Pretrain, PRETRAINING, "PRETRAINING"), threads=2)
    competition = SETS["sentiment"].competition  # of one text
    with atomic_folder(work / "scratch") as base:
        build_scratch(scratch, texts, base)
        write_json(base / FACTS, {"family": "encoder", "sha256": contents_hash(base)})
    rows = pl.DataFrame({"text": [[text] for text in texts]})
    with atomic_folder(folder) as partial:
        pretrain(work / "scratch", rows, start, competition, partial, Checkpoint(work / "checkpoints" / "encoder"))
    return folder


@cache
def _parts(name: str) -> Parts:
    return parts_of(name)


def _updates(attempts: list[dict[str, Any]], settings: Training, learned: Supervised) -> int:
    """Batches that were computed forward and backward, those of the head alone and of DENI's children included."""
    alone = settings.head_first.epochs * len(learned.epoch(0)) if settings.head_first else 0
    children = updates(attempts[-1]["of"], settings.deni) - attempts[-1]["of"] if settings.deni else 0
    return sum(each["steps"] + alone for each in attempts) + children


@torch.inference_mode()
def _probabilities(network: nn.Module, rows: Supervised, classes: int) -> np.ndarray:
    logits = np.zeros((len(rows.labels), classes), dtype=np.float64)
    for places in np.array_split(np.argsort(rows.encoded.lengths(), kind="stable"), 20):
        logits[places] = batch_logits(network, rows.encoded, places, rows.pad_id, rows.device)
    return softmax(logits, axis=1)
