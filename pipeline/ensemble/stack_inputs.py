"""What a stacker sees of the rows: the members' logits and the text features, in both orders of the sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.competitions.task import Competition
from pipeline.data.features import mirrored_features, text_features
from pipeline.ensemble.logits import to_logits


@dataclass(frozen=True)
class Level1:
    """Inputs of the second level for some rows, and the same rows with their sides exchanged."""

    logits: np.ndarray
    """(rows, members, classes), centred."""
    mirrored_logits: np.ndarray
    """The same for the swapped rows; equal to `logits` where the task has no sides."""
    features: np.ndarray
    """(rows, features) Float32; zero columns where no stacker asks for them."""
    mirrored_features: np.ndarray

    def take(self, rows: np.ndarray) -> Level1:
        """The chosen rows, by index or by mask."""
        return Level1(
            *(part[rows] for part in (self.logits, self.mirrored_logits, self.features, self.mirrored_features))
        )

    def members(self, chosen: list[int]) -> Level1:
        """The same rows with the chosen members only."""
        return Level1(self.logits[:, chosen], self.mirrored_logits[:, chosen], self.features, self.mirrored_features)


def build_level1(
    probabilities: list[np.ndarray],
    rows: pl.DataFrame,
    competition: Competition,
    with_features: bool,
    features: pl.DataFrame | None = None,
) -> Level1:
    """Level-1 inputs from one (rows, classes) array per member and the rows' texts, or their text `features`.

    What a member would say with the sides exchanged is taken to be the mirror image of what it said, as it is for all
    but networks that read both sides in one sequence; the report shows how far each member is from that.
    """
    logits = np.stack([to_logits(each) for each in probabilities], axis=1)
    mirror = competition.kind.mirror
    mirrored = logits[:, :, list(mirror)] if mirror else logits
    none = np.empty((len(rows), 0), dtype=np.float32)
    if not with_features:
        return Level1(logits, mirrored, none, none)
    features = text_features(rows, competition.kind) if features is None else features
    other = mirrored_features(features, competition.kind) if mirror else features
    return Level1(logits, mirrored, features.to_numpy(), other.to_numpy())
