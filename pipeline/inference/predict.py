"""What a fold model says about some rows: the one call behind the out-of-fold predictions and the kernel's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.inference.passes import FIRST


class OpenMember(Protocol):
    """A fold model that is loaded once and asked as often as one likes."""

    rescued: int
    """Rows computed again in fp32 so far, because half precision overflowed."""
    tokens_per_batch: int | None
    """The present budget, padding included: halved where memory ran out. None where there are no batches."""

    def predict(self, rows: pl.DataFrame, which: str | None = None) -> np.ndarray:
        """(rows, classes) probabilities of all passes together, or of the pass `which` alone (passes.py).

        Rows sum to 1. NaN stands where there is no answer: in the long pass for a row that is not truncated, in any for
        a row that overflows even in fp32, of an external member for an id that it does not know.

        Raises: PodiumError for a pass that the member does not have, or where a single row does not fit the memory.
        """

    def close(self) -> None:
        """Releases the network. A closed member answers no more."""


def open_member(
    folder: Path, competition: Competition, devices: list[str] | None = None, token_cache: Path | None = None
) -> OpenMember:
    """The fold model in `folder`, by the kind that its member.json names, ready to be asked.

    `devices` are torch's names, for encoders and decoders; by default every GPU, else the CPU. They keep the token ids
    of texts below the folder `token_cache`, for the next that has the same tokenizer; it changes no answer.

    Raises: PodiumError for a kind that does not exist, and for files that are missing, broken, or do not fit.
    """
    kind = read_json(folder / "member.json")["kind"]
    # Each kind brings libraries that the others do without.
    if kind == "tabular":
        from pipeline.models.tabular.model import load_tabular

        return _OnePass(folder, load_tabular(folder, competition))
    if kind == "external":
        from pipeline.models.external import load_external

        return _OnePass(folder, load_external(folder, competition))
    if kind in ("encoder", "decoder"):
        from pipeline.inference.network_member import NeuralMember

        return NeuralMember(folder, competition, devices, token_cache)
    raise PodiumError(f"{folder / 'member.json'}: kind: expected tabular, external, encoder or decoder, found {kind}")


def predict_member(
    folder: Path, rows: pl.DataFrame, competition: Competition, token_cache: Path | None = None
) -> np.ndarray:
    """(rows, classes) probabilities of the fold model in `folder`, all its passes together; see OpenMember.predict.

    Raises: PodiumError where it cannot be opened or asked.
    """
    with closing(open_member(folder, competition, token_cache=token_cache)) as member:
        return member.predict(rows)


class _Model(Protocol):
    def predict(self, rows: pl.DataFrame) -> np.ndarray: ...


@dataclass
class _OnePass:
    """A model without a network, as an OpenMember."""

    folder: Path
    model: _Model
    rescued: int = 0
    tokens_per_batch: int | None = None

    def predict(self, rows: pl.DataFrame, which: str | None = None) -> np.ndarray:
        if which not in (None, FIRST):
            raise PodiumError(f"{self.folder}: expected one of the passes {FIRST}, found {which}")
        return self.model.predict(rows)

    def close(self) -> None:
        """Nothing to release."""
