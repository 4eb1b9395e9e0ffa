"""What a stacker sees of the rows: the members' logits and the text features, in both orders of the sides."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.features import mirrored_features, text_features


@dataclass(frozen=True)
class StackInputs:
    """Inputs of the second level for some rows, and the same rows with their sides exchanged."""

    logits: np.ndarray
    """(rows, members, outputs) natural parameters: centred logits, log odds, standardised numbers."""
    mirrored_logits: np.ndarray
    """`logits` of the swapped rows; equal to `logits` where the task has no sides."""
    features: np.ndarray
    """(rows, features) Float32; zero columns where no stacker asks for them."""
    mirrored_features: np.ndarray

    def take(self, rows: np.ndarray) -> StackInputs:
        """Returns the chosen rows, by index or by mask."""
        return StackInputs(*(part[rows] for part in vars(self).values()))

    def members(self, chosen: list[int]) -> StackInputs:
        """Returns the same rows with the chosen members only."""
        return replace(self, logits=self.logits[:, chosen], mirrored_logits=self.mirrored_logits[:, chosen])


@dataclass(frozen=True)
class SecondLevel:
    """What the second level learns from: the inputs of some rows, and all that fitting needs beside them."""

    inputs: StackInputs
    labels: np.ndarray
    parts: np.ndarray
    """(rows,) folds, which tune and calibrate."""
    groups: np.ndarray
    """(rows,) equal where rows share a prompt and so are not independent."""

    def take(self, rows: np.ndarray) -> SecondLevel:
        """Returns the rows of a mask."""
        return SecondLevel(self.inputs.take(rows), self.labels[rows], self.parts[rows], self.groups[rows])

    def members(self, chosen: list[int]) -> SecondLevel:
        """Returns the same rows with the chosen members only."""
        return replace(self, inputs=self.inputs.members(chosen))


def stack_inputs(
    means: list[np.ndarray],
    rows: pl.DataFrame,
    competition: Competition,
    with_features: bool,
    features: pl.DataFrame | None = None,
) -> StackInputs:
    """Returns the inputs from (rows, outputs) means per member and the rows' texts, or their text `features`.

    What a member would say with the sides exchanged is taken to be the mirror image of what it said, as it is for all
    but networks that read both sides in one sequence; the report shows how far each member is from that.
    """
    logits = np.stack([competition.family.link(each) for each in means], axis=1)
    mirror = competition.kind.mirror
    mirrored = logits[:, :, list(mirror)] if mirror else logits
    none = np.empty((len(rows), 0), dtype=np.float32)
    if not with_features:
        return StackInputs(logits, mirrored, none, none)
    features = text_features(rows, competition.kind) if features is None else features
    other = mirrored_features(features, competition.kind) if mirror else features
    return StackInputs(logits, mirrored, features.to_numpy(), other.to_numpy())
