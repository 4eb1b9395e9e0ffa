"""One device's process: opens fold models, answers chunks of rows, and says how long it took.

python -m pipeline.kernel.worker '{"package": ..., "device": "cpu", ...}'      # the supervisor starts it

The process reads a line of JSON per chunk from its standard input and answers in lines of JSON; whatever libraries
print goes to the standard error. It ends when the supervisor is gone.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import Artifacts
from pipeline.data.rows import field_characters
from pipeline.errors import PodiumError, ran_out
from pipeline.inference.predict import OpenMember, open_member
from pipeline.kernel.faults import Faults
from pipeline.kernel.request import Rows, message_of, open_rows, refuse_broken
from pipeline.models.saved import read_member
from pipeline.planning.steps import Step
from pipeline.section import from_json
from pipeline.settings.finetuning import NetworkSettings


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told on its command line, as JSON; see KernelInputs."""

    package: str
    data: str
    rerun: bool
    broken: dict[str, str]
    token_cache: str
    """The folder in which all workers keep the token ids of texts."""
    device: str
    """`cpu`, or `cuda:0`: a worker sees its own GPU alone."""
    refused: bool
    """Whether the device cannot be opened, on purpose."""
    faults: Faults


def main() -> None:
    """Answers one line after the other until the supervisor is gone."""
    settings = from_json(WorkerSettings, json.loads(sys.argv[1]))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _lines()
    if settings.refused:
        raise SystemExit("the device cannot be opened, on purpose")
    if settings.device != "cpu":
        import torch  # slow to load, and tabular members do without

        torch.zeros(1, device=settings.device)
    worker = Worker(open_rows(Path(settings.package), Path(settings.data), settings.rerun), settings)
    print(json.dumps({"ready": True}), file=out, flush=True)
    settings.faults.begin()
    for line in lines:
        chunk = json.loads(line)
        for message in worker.answer(Step(*chunk["step"]), from_base64(chunk["rows"], "<i8")):
            print(json.dumps(message), file=out, flush=True)


class Worker:
    """Keeps one fold model open between chunks."""

    def __init__(self, rows: Rows, settings: WorkerSettings) -> None:
        self.rows, self.settings, self.faults = rows, settings, settings.faults
        self.artifacts = Artifacts(Path(settings.package))
        self.longest = np.sum(list(field_characters(rows.frame, rows.competition.kind.fields).values()), axis=0)
        self.opened: OpenMember | None = None
        self.folder: Path | None = None
        self.chunks = 0

    def answer(self, step: Step, chosen: np.ndarray) -> Iterator[dict[str, Any]]:
        """Yields the messages about a chunk, the row numbers `chosen` of a step.

        They are `opened` where a fold model had to be loaded, then `values` or `failed`.
        """
        self.chunks += 1
        try:
            opening = self._open(self.artifacts.model(step.member, step.fold))
            if opening is not None:
                yield {"opened": opening, "megabytes": self._memory()}
            began = time.monotonic()
            assert self.opened
            rescued, budget = self.opened.rescued, self.opened.tokens_per_batch
            self.faults.before(self.chunks, float(self.longest[chosen].max()), len(chosen))
            values = self.opened.predict(self.rows.frame[chosen], step.which)
            self.faults.after(time.monotonic() - began)
            values[: self.faults.spoiled()] = np.nan
            answered = {"values": to_base64(values, "<f8"), "rescued": self.opened.rescued - rescued}
            if self.opened.tokens_per_batch != budget:
                smaller = f"batches of {self.opened.tokens_per_batch} tokens from here on"
                print(f"problem: {step}: memory ran out; {smaller}", file=sys.stderr, flush=True)
            yield answered | {"seconds": time.monotonic() - began}
        except Exception as error:
            if ran_out(error):
                said = message_of(error)
                yield {"failed": "memory", "message": said if "out of memory" in said else f"out of memory: {said}"}
                return
            if not self._device_works():
                # Some CUDA errors end a process's every later call. It is no fault of the fold model, and another
                # process may have the device back; sys.exit would wait for CUDA to tidy up what is broken.
                print(
                    f"problem: {step}: {self.settings.device} is lost: {message_of(error)}", file=sys.stderr, flush=True
                )
                os._exit(1)
            self._close()
            expected = isinstance(error, PodiumError)
            message = message_of(error) if expected else f"{type(error).__name__}: {message_of(error)}"
            yield {"failed": "broken", "message": message}

    def _device_works(self) -> bool:
        """Returns whether the device still answers this process."""
        try:
            self.faults.touch(self.chunks)
            if self.settings.device != "cpu":
                import torch

                torch.ones(1, device=self.settings.device).item()
        except RuntimeError:
            return False
        return True

    def _open(self, folder: Path) -> float | None:
        """Returns the seconds that opening the fold model in `folder` took; None where it is open already."""
        if folder == self.folder:
            return None
        began = time.monotonic()
        self._close()
        for each in self._made_of(folder):
            refuse_broken(each, self.artifacts.root, self.settings.broken)
        devices, token_cache = [self.settings.device], Path(self.settings.token_cache)
        self.opened = open_member(folder, self.artifacts, self.rows.competition, devices, token_cache)
        self.folder = folder
        self.faults.after(time.monotonic() - began)
        return time.monotonic() - began

    def _made_of(self, folder: Path) -> Iterator[Path]:
        """Yields the folders that the fold model in `folder` is opened from: its own, and that of its backbone."""
        yield folder
        settings = read_member(folder, self.rows.competition).settings
        if isinstance(settings, NetworkSettings):
            yield self.artifacts.pretrained(settings.backbone)
            yield self.artifacts.base(settings.backbone, settings.inference.precision)

    def _memory(self) -> float:
        """Returns the megabytes that this process holds: on its GPU, or on a CPU altogether."""
        if self.settings.device != "cpu":
            import torch

            return torch.cuda.memory_allocated() / 1e6
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _close(self) -> None:
        if self.opened:
            self.opened.close()
        self.opened = self.folder = None
        gc.collect()


def to_base64(values: np.ndarray, dtype: str) -> str:
    """Returns an array as text for a line of JSON."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def from_base64(text: str, dtype: str) -> np.ndarray:
    """Returns the array that `to_base64` made `text` of, flat."""
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def _lines() -> Iterator[str]:
    """Yields the lines of the standard input; the process ends when that is closed, whatever it is doing."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


if __name__ == "__main__":
    main()
