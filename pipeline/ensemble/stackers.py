"""The second level: fitted models over the members' logits, in the form in which the kernel loads and runs them.

pipeline/ensemble/fitting.py makes them. Mirrored rows get mirrored answers: the linear ones are built that way, and
LightGBM answers with the mean over both orders of the sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from pipeline.competitions.task import Competition
from pipeline.ensemble.stack_inputs import StackInputs


@dataclass(frozen=True)
class Linear:
    """A weighted sum of the members' logits: the candidates `mean`, `greedy`, `weights` and `logistic`."""

    name: str
    weights: np.ndarray
    """(members, outputs, outputs): how much a member's output (second axis) counts for an output (third)."""
    bias: np.ndarray
    """(outputs,)."""

    def logits(self, members: np.ndarray) -> np.ndarray:
        """Returns the answer's logits, (rows, classes), from the members', (rows, members, classes)."""
        return members.reshape(len(members), -1) @ self.weights.reshape(-1, len(self.bias)) + self.bias


@dataclass(frozen=True)
class Boosted:
    """LightGBM on the members' logits and the text features; its trees correct the answer of a linear stacker."""

    base: Linear
    boosters: tuple[lgb.Booster, ...]
    """One for all classes together, or one per output."""
    threads: int
    name = "lightgbm"


Stacker = Linear | Boosted


def scalar_weights(name: str, per_member: np.ndarray, classes: int) -> Linear:
    """Returns the linear stacker with one weight per member, (members,), and no bias."""
    return Linear(name, np.asarray(per_member)[:, None, None] * np.eye(classes), np.zeros(classes))


def equal_mean(members: int, classes: int) -> Linear:
    """Returns the equal mean of the members' logits. Nothing is fitted, so nothing can be overfitted."""
    return scalar_weights("mean", np.full(members, 1.0 / members), classes)


def predict(stacker: Stacker, inputs: StackInputs, competition: Competition) -> np.ndarray:
    """Returns the stacker's answer, (rows, outputs) means."""
    family = competition.family
    if isinstance(stacker, Linear):
        return family.means(stacker.logits(inputs.logits))
    straight = family.means(_boosted(stacker, inputs.logits, inputs.features))
    if not competition.kind.mirror:
        return straight
    other = family.means(_boosted(stacker, inputs.mirrored_logits, inputs.mirrored_features))
    return (straight + competition.mirrored(other)) / 2


def _boosted(stacker: Boosted, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
    table = tree_inputs(logits, features)
    return stacker.base.logits(logits) + raw_scores(stacker.boosters, table, stacker.threads)


def raw_scores(
    boosters: Sequence[lgb.Booster], table: np.ndarray, threads: int, trees: int | None = None
) -> np.ndarray:
    """Returns what the trees add, (rows, outputs), from a booster for all classes or one per output."""
    each = [each.predict(table, raw_score=True, num_iteration=trees, num_threads=threads) for each in boosters]
    return np.asarray(each[0]) if len(each) == 1 and np.ndim(each[0]) == 2 else np.stack(each, axis=1)


def tree_inputs(logits: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Returns what LightGBM splits on, (rows, members * outputs + features) Float32."""
    return np.concatenate([logits.reshape(len(logits), -1).astype(np.float32), features], axis=1)


def save(stacker: Stacker, folder: Path, file: str) -> dict[str, Any]:
    """Returns the stacker as JSON; LightGBM's trees go to files of `folder` whose names begin with `file`."""
    if isinstance(stacker, Boosted):
        files = [f"{file}.{number}.txt" for number in range(len(stacker.boosters))]
        for name, booster in zip(files, stacker.boosters, strict=True):
            (folder / name).write_text(booster.model_to_string(), encoding="utf-8")
        return {"stacker": stacker.name, "files": files, "base": save(stacker.base, folder, file)}
    return {"stacker": stacker.name, "weights": readable(stacker), "bias": stacker.bias.tolist()}


def readable(stacker: Linear) -> list[Any]:
    """Returns the weights as numbers: one per member where that says all, else members x classes x classes."""
    first = stacker.weights[:, 0, 0]
    plain = np.array_equal(stacker.weights, scalar_weights("", first, len(stacker.bias)).weights)
    return first.tolist() if plain else stacker.weights.tolist()


def load(saved: dict[str, Any], folder: Path, threads: int) -> Stacker:
    """Returns the stacker that `save` has written."""
    if saved["stacker"] == Boosted.name:
        base = load(saved["base"], folder, threads)
        assert isinstance(base, Linear)
        trees = [(folder / file).read_text(encoding="utf-8") for file in saved["files"]]
        return Boosted(base, tuple(lgb.Booster(model_str=each) for each in trees), threads)
    weights, bias = np.asarray(saved["weights"]), np.asarray(saved["bias"])
    if weights.ndim == 1:
        weights = scalar_weights("", weights, len(bias)).weights
    return Linear(saved["stacker"], weights, bias)
