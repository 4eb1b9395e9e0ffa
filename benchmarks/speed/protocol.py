"""What all sides have in common: real rows, one small DeBERTa with random weights, and the same recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn

from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.data.text import Encoded
from pipeline.errors import PodiumError
from pipeline.inference.network_member import encoded_rows
from pipeline.ingest.prepare import prepare
from pipeline.members.encoder import trainable_backbone
from pipeline.models.backbones.obtain import obtain
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import Network, encoder_network
from pipeline.settings.backbones import Scratch
from pipeline.settings.encoder import Encoder
from pipeline.settings.optimisation import Attention
from pipeline.validation import validated

DATA = Path("../shared/data/arena_real")
BACKBONE = {
    "source": "scratch",
    "architecture": "deberta-v3",
    "vocabulary": 8000,
    "hidden": 256,
    "layers": 6,
    "heads": 4,
    "positions": 512,
}
"""Heads of 64 units, as in microsoft/deberta-v3-*; a network that two cores train in minutes."""
ROWS_PER_STEP, TOKENS_PER_BATCH, MAX_TOKENS = 16, 8192, 512
MEMBER: dict[str, Any] = {
    "kind": "encoder",
    "backbone": "small",
    "input": "siamese",
    "head": "plain",
    "max_tokens": MAX_TOKENS,
    "training": {
        "epochs": 1,
        "schedule": {"rate": 3.0e-4, "warmup": 0.1, "decay": "linear"},
        "weight_decay": 0.01,
        "batches": {"rows_per_step": ROWS_PER_STEP, "tokens_per_batch": TOKENS_PER_BATCH},
        "inner": 0.0,
        "swap": False,
    },
}


@dataclass(frozen=True)
class Bench:
    """Where the sides begin: they read the same rows, and start from the same weights."""

    competition: Competition
    base: Path
    settings: Encoder
    tokenizer: Any
    train: pl.DataFrame
    held: pl.DataFrame

    def network(self, attention: Attention, seed: int) -> Network:
        """Returns a fresh siamese network: backbone, pooling and head by `seed`."""
        torch.manual_seed(seed)
        settings = replace(self.settings, attention=attention)
        backbone = trainable_backbone(self.base, settings, "cpu")
        network = encoder_network(backbone, settings, self.competition.kind, len(self.competition.outputs), None)
        assert isinstance(network, Network)
        return network

    def encoded(self, rows: pl.DataFrame) -> Encoded:
        """Returns the sequences that all sides learn from."""
        return encoded_rows(rows, self.settings, self.tokenizer, self.competition)


def labels_of(rows: pl.DataFrame) -> np.ndarray:
    """Returns (rows,) class numbers."""
    return rows["label"].to_numpy().astype(np.int64)


def votes(folder: Path) -> pl.DataFrame:
    """Returns the real votes, prepared below `folder`.

    Raises: PodiumError where they are missing.
    """
    if not DATA.is_dir():
        raise PodiumError(f"{DATA}: the real votes are not here")
    prepare(DATA, load_competition("lmsys"), folder / "competition")
    return pl.read_parquet(folder / "competition" / "train.parquet")


def texts_of(rows: pl.DataFrame) -> list[str]:
    """Returns all texts of votes, from which a tokenizer is made."""
    fields = load_competition("lmsys").kind.fields
    return [turn for field in fields for turns in rows[field] for turn in turns if turn]


def opened(folder: Path, train: int, held: int, precision: str) -> Bench:
    """Prepares the votes and builds the network below `folder`; rows are drawn once.

    Raises: PodiumError where the votes are missing.
    """
    competition = load_competition("lmsys")
    rows = votes(folder).sample(train + held, seed=0, shuffle=True)
    settings = member_settings(MEMBER | {"training": MEMBER["training"] | {"precision": precision}})
    assert isinstance(settings, Encoder)
    texts = texts_of(rows)
    base = folder / "backbone"
    base.mkdir()
    obtain("small", validated(Scratch, BACKBONE, "BACKBONE"), lambda: texts, base)
    return Bench(competition, base, settings, load_tokenizer(base), rows.head(train), rows.tail(held))


def loss_of(network: nn.Module, ask: Any, labels: np.ndarray) -> float:
    """Returns the cross entropy of (rows, classes) logits that `ask` gives for a network."""
    logits = torch.from_numpy(ask(network))
    return float(nn.functional.cross_entropy(logits.double(), torch.from_numpy(labels)))
