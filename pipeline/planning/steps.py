"""The steps of a kernel, each one pass of a fold model over some rows, and how much work each row is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.competitions.task import Task
from pipeline.data.text import views_of
from pipeline.inference.passes import FIRST, LONG, SWAP
from pipeline.kinds import kind_of

Members = Mapping[str, Mapping[str, Any]]
"""A package's members, as in its manifest."""
CHARACTERS_PER_TOKEN = 4.0
"""For a member without a network, which reads all of a text and counts it in the same unit as a network."""
AROUND = 8
"""How many tokens of a sequence belong to no text: separators, labels; a prompt's own come on top."""


@dataclass(frozen=True, order=True)
class Step:
    """One pass of one fold model."""

    member: str
    fold: int
    which: str = FIRST

    def __str__(self) -> str:
        return f"{self.member} fold {self.fold}" + ("" if self.which == FIRST else f" {self.which}")


@dataclass(frozen=True)
class Load:
    """How much work each row is for a member in one pass."""

    tokens: np.ndarray
    """(rows,) number of tokens of all its sequences, estimated from characters."""
    squares: np.ndarray
    """(rows,) sum of its sequences' squared lengths, which attention costs; zero without a network."""
    eligible: np.ndarray
    """(rows,) whether the pass reads the row."""


def loads_of(members: Members, characters: Mapping[str, np.ndarray], task: Task) -> dict[Step, Load]:
    """Returns the loads of all steps, in the order of members, passes and folds; `characters`: field -> (rows,)."""
    loads: dict[Step, Load] = {}
    for name, member in members.items():
        for which in member["passes"]:
            load = load_of(member, which, characters, task)
            loads |= {Step(name, fold, which): load for fold in member["folds"]}
    return loads


def view_characters(characters: Mapping[str, np.ndarray], task: Task, siamese: bool) -> np.ndarray:
    """Returns how many characters each sequence of each row has, (sequences, rows); `characters` as in `loads_of`."""
    return np.stack([np.sum([characters[name] for name in view], axis=0) for view in views_of(task, siamese)])


def load_of(member: Mapping[str, Any], which: str, characters: Mapping[str, np.ndarray], task: Task) -> Load:
    """Returns the load of the pass `which` of a member (its entry in the manifest); `characters` as in `loads_of`."""
    if not kind_of(member["kind"]).network:
        tokens = np.sum(list(characters.values()), axis=0) / CHARACTERS_PER_TOKEN
        return Load(tokens, np.zeros_like(tokens), np.ones(len(tokens), dtype=bool))
    work = member["work"]
    read = view_characters(characters, task, work["siamese"])
    lengths = read / work["characters_per_token"] + work["around"]
    # An estimate; but no row is passed over that has as many characters as one that is known to be truncated. The
    # worker, which counts the tokens, reads those alone that are.
    shortest = work.get("shortest_cut")
    truncated = (lengths > work["max_tokens"]).any(axis=0) | (read.max(axis=0) >= (shortest or np.inf))
    kept = np.minimum(lengths, work["long_tokens"] if which == LONG else work["max_tokens"])
    times = 2 if which == LONG and SWAP in member["passes"] else 1
    times *= work["questions"]
    tokens, squares = times * kept.sum(axis=0), times * (kept**2).sum(axis=0)
    return Load(tokens, squares, truncated if which == LONG else np.ones(len(tokens), dtype=bool))
