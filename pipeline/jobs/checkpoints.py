"""Checkpoints that travel: the newest of each stage at work, in DVC's remote, for the machine that gets it next.

They lie in a folder of their own there, beside what DVC keeps, and are gone once the stage's result has come. Any is as
good as another, since a run goes on from each to the same bits: the newest only saves the most.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.files import atomic_file
from pipeline.jobs.travel import patient
from pipeline.training.checkpoint import ROOT

THERE = "checkpoints"
"""The folder in the remote."""
SECONDS = 180.0
"""Between two journeys at least; PODIUM_TRAVEL_SECONDS replaces it."""
SHARE = 0.2
"""Of the time at most may go into journeys: a network in the middle of its training takes gigabytes."""
FILES = "*.safetensors"


def run_of(stage: str) -> str | None:
    """Returns the name of a stage's run, with which its checkpoint's folder begins; None for one that has none."""
    name, _, key = stage.partition("@")
    if name in ("finetune", "distil"):
        member, _, fold = key.rpartition("-")
        return f"{member}-fold{fold}"
    return {"pretrain": stage, "refit": f"{key}-refit"}.get(name)


@dataclass
class Journeys:
    """Of the checkpoint of one run, between this clone and a remote of DVC's."""

    remote: Any
    run: str
    sent: dict[Path, int] = field(default_factory=dict)
    """When each file that was brought was written, in ns."""

    @property
    def here(self) -> list[Path]:
        """The folders of the run in this clone: one, where its settings have not changed."""
        return sorted(ROOT.glob(f"{self.run}-{'?' * 16}"))

    def there(self) -> list[str]:
        """Returns the folders of the run in the remote."""
        fs, root = self.remote.fs, self._place()
        fs.fs.invalidate_cache()  # other machines write there, too
        found = fs.ls(root, detail=False) if fs.exists(root) else []
        return [each for each in found if fs.name(each)[:-17] == self.run]

    def fetch(self) -> None:
        """Brings the run's checkpoint here, unless this clone has one of its own."""
        if self.here:
            return
        fs = self.remote.fs
        for folder in self.there():
            for file in fs.find(folder):
                target = ROOT / fs.name(folder) / fs.name(file)
                if target.match(FILES):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_file(target) as partial:
                        fs.get_file(file, str(partial))

    def bring(self) -> None:
        """Brings what is new of the run's checkpoint to the remote; other settings' is forgotten there."""
        fs, here, held = self.remote.fs, self.here, ROOT / f".{self.run}.travels"
        for file in (file for folder in here for file in sorted(folder.glob(FILES))):
            held.unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # the run has just come to its end
                os.link(file, held)  # the stage may put the next one in its place
                written = held.stat().st_mtime_ns
                if self.sent.get(file) != written:
                    place = self._place(file.parent.name)
                    fs.makedirs(place, exist_ok=True)
                    fs.put_file(str(held), fs.join(place, file.name))
                    self.sent[file] = written
        held.unlink(missing_ok=True)
        if self.sent:
            self._forget(keeping={folder.name for folder in here})

    def end(self) -> None:
        """Forgets the run's checkpoint in the remote: its result is there."""
        self._forget(keeping=set())

    def _forget(self, keeping: set[str]) -> None:
        for folder in self.there():
            if self.remote.fs.name(folder) not in keeping:
                self.remote.fs.rm(folder, recursive=True)

    def _place(self, *names: str) -> str:
        place: str = self.remote.fs.join(self.remote.path, THERE, *names)
        return place


@contextmanager
def travelling(remote: Any, stage: str) -> Iterator[None]:
    """Fetches the checkpoint of a stage, and brings it to the remote from time to time while the body runs.

    A remote that is away then costs no stage: that is said, and tried again. After the body the remote forgets it.
    """
    run = run_of(stage)
    if run is None:
        yield
        return
    journeys, over = Journeys(remote, run), threading.Event()
    patient(journeys.fetch)

    def bring() -> None:
        between = float(os.environ.get("PODIUM_TRAVEL_SECONDS", SECONDS))
        wait = between
        while not over.wait(wait):
            began = time.monotonic()
            try:
                journeys.bring()
            except Exception as error:  # of many libraries
                said = " ".join(str(error).split())
                print(f"DVC's remote: the checkpoint stays here for now: {said}", flush=True)
            wait = max(between, (time.monotonic() - began) / SHARE)

    traveller = threading.Thread(target=bring, daemon=True)
    traveller.start()
    try:
        yield
    finally:
        over.set()
        traveller.join()
    patient(journeys.end)
