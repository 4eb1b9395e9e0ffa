"""What a fold's training gets beside its rows and its start file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.training.checkpoint import Checkpoint


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
