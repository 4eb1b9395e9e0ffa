"""A training run that can be killed at any moment: its state in one file, replaced as a whole, under a lock.

Checkpoints live in work/checkpoints/, outside of DVC's outputs, which DVC deletes before it runs a stage again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from pipeline.files import atomic_file, exclusive, remove_partials

if TYPE_CHECKING:  # tabular members come through here, too, and need no torch
    from torch import Tensor

ROOT = Path("work/checkpoints")
STATE = "state.safetensors"
SECONDS = 30.0
"""Between two checkpoints at least; PODIUM_CHECKPOINT_SECONDS replaces it. It changes no result."""
SHARE = 0.05
"""Of a run's time may go into checkpoints."""


@dataclass
class Checkpoint:
    """Where one run keeps its state."""

    folder: Path
    saved: float = field(default_factory=time.monotonic)
    cost: float = 0.0

    def due(self) -> bool:
        """Returns whether the next one should be written, for a run killed now would lose more than it would cost."""
        between = float(os.environ.get("PODIUM_CHECKPOINT_SECONDS", SECONDS))
        return time.monotonic() - self.saved >= max(between, self.cost / SHARE if between else 0.0)

    def save(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Writes the state of the run's part `name`; a kill leaves the old one or the new one, never a mixture."""
        from safetensors.torch import save_file

        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{name}-{STATE}"
        remove_partials(file)
        with atomic_file(file) as partial:
            save_file(
                {key: each.detach().contiguous() for key, each in tensors.items()},
                partial,
                {"facts": json.dumps(facts)},
            )
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Returns what `save` wrote for the part, or None. A file that cannot be read is as good as none, and named."""
        file = self.folder / f"{name}-{STATE}"
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as stream:
                tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
                return tensors, json.loads(stream.metadata()["facts"])
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            print(f"{file}: not readable ({' '.join(str(error).split())}); this part starts afresh", flush=True)
            return None

    def forget_tensors(self, name: str) -> None:
        """Keeps the facts of the part `name` alone: another run takes its place, and the disk may be small."""
        found = self.load(name)
        if found is not None:
            self.save(name, {}, found[1])


@contextmanager
def checkpoint(label: str, key: str) -> Iterator[Checkpoint]:
    """Yields the checkpoint of the run `label` (`words-fold0`) with the settings and data that `key` hashes.

    It is deleted on success. One of the same run with another key is deleted at once: the run starts afresh, which is
    said.

    Raises: PodiumError where another process holds the same run.
    """
    folder = ROOT / f"{label}-{key[:16]}"
    with exclusive(ROOT / f"{label}.lock", label, "is training it"):
        for other in ROOT.glob(f"{label}-{'?' * 16}"):
            if other != folder:
                print(f"{label}: settings, data or code changed since it was interrupted: it starts afresh", flush=True)
                shutil.rmtree(other)
        yield Checkpoint(folder)
        shutil.rmtree(folder, ignore_errors=True)
