"""What the kernel can do: its steps, each one pass of a fold model over some rows, and how much work a row is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.competitions.task import Task
from pipeline.data.text import views_of
from pipeline.inference.passes import FIRST, LONG, SWAP

CHARACTERS_PER_TOKEN = 4.0
"""Where a member brings no figure of its own; tabular members read all of a text and count it in the same unit."""
AROUND = 8
"""Tokens of a sequence that belong to no text: separators, labels."""


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
    """How much work each row is to a member in one pass."""

    tokens: np.ndarray
    """(rows,) tokens of all its sequences, as estimated from characters."""
    squares: np.ndarray
    """(rows,) sum of its sequences' squared lengths: what attention costs. Zero for tabular members."""
    eligible: np.ndarray
    """(rows,) which rows the pass is for."""


def steps_of(members: dict[str, dict[str, Any]]) -> list[Step]:
    """Every step of a package, in the order of its members, passes and folds. `members` stands in the manifest."""
    return [
        Step(name, fold, which)
        for name, member in members.items()
        for which in member["passes"]
        for fold in member["folds"]
    ]


def loads_of(members: dict[str, dict[str, Any]], characters: dict[str, np.ndarray], task: Task) -> dict[Step, Load]:
    """The work of every step of a package on rows whose fields have so many characters, (rows,) each."""
    each = {
        (name, which): load_of(one, which, characters, task) for name, one in members.items() for which in one["passes"]
    }
    return {step: each[step.member, step.which] for step in steps_of(members)}


def load_of(member: dict[str, Any], which: str, characters: dict[str, np.ndarray], task: Task) -> Load:
    """The work that each row is to `member` (its entry in the manifest) in the pass `which`."""
    if member["kind"] in ("tabular", "external"):
        tokens = np.sum(list(characters.values()), axis=0) / CHARACTERS_PER_TOKEN
        return Load(tokens, np.zeros_like(tokens), np.ones(len(tokens), dtype=bool))
    about = member["work"]
    views = views_of(task, about["siamese"])
    lengths = np.stack([sum(characters[name] for name in view) / about["characters_per_token"] for view in views])
    lengths += AROUND
    truncated = (lengths > about["max_tokens"]).any(axis=0)
    kept = np.minimum(lengths, about["long_tokens"] if which == LONG else about["max_tokens"])
    times = 2 if which == LONG and SWAP in member["passes"] else 1
    tokens, squares = times * kept.sum(axis=0), times * (kept**2).sum(axis=0)
    return Load(tokens, squares, truncated if which == LONG else np.ones(len(tokens), dtype=bool))
