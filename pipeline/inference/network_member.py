"""An encoder or decoder fold model, opened once and asked pass by pass: on the CPU, on one GPU, or on several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.rows import swapped
from pipeline.data.text import PROMPT, Encoded, encode
from pipeline.errors import PodiumError
from pipeline.inference.forward import logits_of
from pipeline.inference.open_network import Opened, open_network
from pipeline.inference.passes import LONG, SWAP, combined, passes_of
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.saved import read_member
from pipeline.settings.finetuning import NetworkSettings


class NetworkMember:
    """See pipeline.inference.predict.OpenMember."""

    def __init__(
        self,
        folder: Path,
        artifacts: Artifacts,
        competition: Competition,
        devices: list[str] | None = None,
        token_cache: Path | None = None,
    ) -> None:
        """Loads the network in `folder` on each of `devices` (torch's names; by default every GPU, else the CPU).

        `artifacts` (of a run, or a package) has its backbone. `token_cache` is a folder for the token ids of texts.

        Raises: PodiumError where files are missing, broken, or do not belong together, or memory is too small.
        """
        about = read_member(folder, competition)
        assert isinstance(about.settings, NetworkSettings)
        self.folder, self.competition, self.settings = folder, competition, about.settings
        self.passes = passes_of(self.settings)
        self.rescued = 0
        self.tokens_per_batch: int | None = self.settings.inference.tokens_per_batch
        name, trained_on = self.settings.backbone, about.facts["backbone"]
        base = artifacts.base(name, self.settings.inference.precision)
        if (found := artifacts.backbone_facts(name)["sha256"]) != trained_on:
            mixed = f"({trained_on[:8]}, here {found[:8]})"
            raise PodiumError(f"{folder}: trained on another backbone {name} {mixed}; run `dvc repro`")
        self._tokenizer, self._token_cache = load_tokenizer(base), token_cache
        self._networks: list[Opened] = []
        try:
            for device in devices or available_devices():
                self._networks.append(open_network(folder, about, base, competition, device))
        except BaseException:
            self.close()
            raise

    def predict(self, rows: pl.DataFrame, which: str | None = None) -> np.ndarray:
        """Returns (rows, outputs) means of the pass `which`, by default of all passes together.

        Raises: PodiumError for a pass that the member does not have, or where a single row does not fit the memory.
        """
        if which is None:
            return combined({each: self.predict(rows, each) for each in self.passes})
        if which not in self.passes:
            raise PodiumError(f"{self.folder}: expected one of the passes {', '.join(self.passes)}, found {which}")
        if which == LONG:
            return self._long(rows)
        return self._answer(self._encoded(self._exchanged(rows, which), self.settings), which)

    def close(self) -> None:
        """Gives up the networks; a decoder's base stays, for the next fold."""
        while self._networks:
            self._networks.pop().close()

    def _long(self, rows: pl.DataFrame) -> np.ndarray:
        """Returns the answers to truncated rows, read at greater length, in both orders if asked; NaN for others."""
        result = np.full((len(rows), len(self.competition.outputs)), np.nan)
        cut = self._encoded(rows, self.settings).cut
        assert self.settings.inference.long_tokens is not None
        inference = replace(self.settings.inference, long_tokens=None)
        longer = replace(self.settings, max_tokens=self.settings.inference.long_tokens, inference=inference)
        parts = {}
        for which in (each for each in self.passes if each != LONG):
            asked = self._exchanged(rows.filter(pl.Series(cut, dtype=pl.Boolean)), which)
            parts[which] = self._answer(self._encoded(asked, longer), which)
        result[cut] = combined(parts)
        return result

    def _exchanged(self, rows: pl.DataFrame, which: str) -> pl.DataFrame:
        """Returns the rows in the order of sides that the pass reads."""
        return swapped(rows, self.competition.kind) if which == SWAP else rows

    def _encoded(self, rows: pl.DataFrame, settings: NetworkSettings) -> Encoded:
        return encoded_rows(rows, settings, self._tokenizer, self.competition, self._token_cache)

    def _answer(self, encoded: Encoded, which: str) -> np.ndarray:
        """Returns (rows, outputs) means in the rows' own order of sides."""
        if not self._networks:
            raise ValueError(f"{self.folder}: asked after it was closed")
        assert self.tokens_per_batch is not None
        pad_id, outputs = int(self._tokenizer.pad_token_id), len(self.competition.outputs)
        answered = logits_of(encoded, self._networks, pad_id, self.tokens_per_batch, outputs)
        self.rescued += answered.rescued
        self.tokens_per_batch = answered.budget
        means = self.competition.family.means(answered.logits.astype(np.float64))
        return self.competition.mirrored(means) if which == SWAP else means


def encoded_rows(
    rows: pl.DataFrame,
    settings: NetworkSettings,
    tokenizer: Any,
    competition: Competition,
    token_cache: Path | None = None,
) -> Encoded:
    """Returns `rows` as the sequences that a member with these settings reads."""
    siamese, family = settings.input == "siamese", PROMPT if settings.head == "tokens" else settings.kind
    return encode(rows, tokenizer, family, competition, siamese, settings.max_tokens, token_cache)


def available_devices() -> list[str]:
    """Returns every GPU that torch sees, else the CPU."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
