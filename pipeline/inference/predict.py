"""What a fold model says about some rows: the one call behind the out-of-fold predictions and the kernel's."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.errors import PodiumError
from pipeline.inference.passes import FIRST, combined, passes_of
from pipeline.models.candidates import Candidates
from pipeline.models.saved import read_member


class OpenMember(Protocol):
    """A fold model that is loaded once and asked as often as one likes."""

    @property
    def rescued(self) -> int:
        """Rows computed again in fp32 so far, because half precision overflowed."""

    @property
    def tokens_per_batch(self) -> int | None:
        """The present budget, padding included: halved where memory ran out. None where there are no batches."""

    def predict(self, rows: pl.DataFrame, which: str | None = None) -> np.ndarray:
        """Returns (rows, classes) probabilities of all passes together, or of the pass `which` alone (passes.py).

        Rows sum to 1. NaN stands where there is no answer: in the long pass for a row that is not truncated, in any for
        a row that overflows even in fp32, of an external member for an id that it does not know.

        Raises: PodiumError for a pass that the member does not have, or where a single row does not fit the memory.
        """

    def close(self) -> None:
        """Releases the network. A closed member answers no more."""


def open_member(
    folder: Path,
    artifacts: Artifacts,
    competition: Competition,
    devices: list[str] | None = None,
    token_cache: Path | None = None,
) -> OpenMember:
    """Returns the fold model in `folder`, by the kind that its member.json names, ready to be asked.

    `artifacts` (of the run, or the package) has its backbone. `devices` are torch's names, for networks; by default
    every GPU, else the CPU. They keep the token ids of texts below the folder `token_cache`, for the next that has the
    same tokenizer; it changes no answer.

    Raises: PodiumError for a kind that does not exist, and for files that are missing, broken, or do not fit.
    """
    about = read_member(folder, competition)
    opener = resolve_name(about.kind.opener)
    member: OpenMember
    if about.kind.network:
        member = opener(folder, artifacts, competition, devices, token_cache)
    else:
        member = _OnePass(folder, opener(folder, competition))
    if not competition.candidates:
        return member
    return _Limited(member, Candidates.load(folder), passes_of(about.settings))


def predict_member(
    folder: Path, artifacts: Artifacts, rows: pl.DataFrame, competition: Competition, token_cache: Path | None = None
) -> np.ndarray:
    """Returns the (rows, classes) probabilities of the fold model in `folder`, all its passes together.

    Raises: PodiumError where it cannot be opened or asked.
    """
    with closing(open_member(folder, artifacts, competition, token_cache=token_cache)) as member:
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
        """Does nothing: there is nothing to release."""


@dataclass
class _Limited:
    """An OpenMember whose answers are drawn to each row's candidates, pass by pass as the kernel asks for them."""

    member: OpenMember
    candidates: Candidates
    passes: tuple[str, ...]

    @property
    def rescued(self) -> int:
        return self.member.rescued

    @property
    def tokens_per_batch(self) -> int | None:
        return self.member.tokens_per_batch

    def predict(self, rows: pl.DataFrame, which: str | None = None) -> np.ndarray:
        if which is None:
            return combined({each: self.predict(rows, each) for each in self.passes})
        return self.candidates.applied(rows, self.member.predict(rows, which))

    def close(self) -> None:
        """Releases the member."""
        self.member.close()
