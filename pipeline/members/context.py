"""What a fold's training gets beside its rows and its start file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.training.checkpoint import Checkpoint

TOKENS = "tokens"
"""The folder below artifacts/ in which token ids of texts are kept; no stage's output, and it may go at any time."""


@dataclass(frozen=True)
class Run:
    """One fold model's run."""

    label: str
    """For people: `words fold 0`."""
    artifacts: Path
    """Where backbones lie."""
    checkpoint: Checkpoint
    quick: bool = False
    """A look at a few rows: they are printed as the network reads them."""

    @property
    def token_cache(self) -> Path | None:
        """See pipeline.data.tokens; a quick look keeps nothing."""
        return None if self.quick else self.artifacts / TOKENS
