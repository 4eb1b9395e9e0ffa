"""One device's process: opens fold models, answers chunks of rows, and says how long it took.

python -m pipeline.kernel.worker '{"package": ..., "device": "cpu", ...}'      # the supervisor starts it

It reads a line of JSON per chunk from its standard input and answers in lines of JSON; whatever libraries print goes to
the standard error. When the supervisor is gone, so is it.
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
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import Artifacts
from pipeline.data.rows import field_characters
from pipeline.errors import PodiumError
from pipeline.inference.predict import OpenMember, open_member
from pipeline.kernel.faults import Faults
from pipeline.kernel.request import Rows, one_line, open_rows, refuse_broken


def main() -> None:
    """Answers until there are no more lines."""
    settings = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _lines()
    faults = Faults(settings["faults"], settings["first"])
    if settings["refused"]:
        raise SystemExit("the device cannot be opened, on purpose")
    if settings["device"] != "cpu":
        import torch  # slow to load, and tabular members do without

        torch.zeros(1, device=settings["device"])
    rows = open_rows(Path(settings["package"]), Path(settings["data"]), settings["rerun"])
    worker = Worker(rows, settings, faults)

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    send({"ready": True})
    faults.begin()
    for line in lines:
        for message in worker.answer(json.loads(line)):
            send(message)


class Worker:
    """Keeps one fold model open between chunks."""

    def __init__(self, rows: Rows, settings: dict[str, Any], faults: Faults) -> None:
        self.rows, self.settings, self.faults = rows, settings, faults
        self.package, self.broken = Path(settings["package"]), settings["broken"]
        self.longest = np.sum(list(field_characters(rows.frame, rows.competition.kind.fields).values()), axis=0)
        self.opened: OpenMember | None = None
        self.name = ""
        self.chunks = 0

    def answer(self, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yields `opened` where a fold model had to be, then `values` or `failed`."""
        chosen = decoded(task["rows"], "<i8")
        self.chunks += 1
        try:
            opening = self._open(f"members/{task['member']}/fold{task['fold']}")
            if opening is not None:
                yield {"opened": opening, "megabytes": self._memory()}
            began = time.monotonic()
            assert self.opened
            rescued, budget = self.opened.rescued, self.opened.tokens_per_batch
            self.faults.before(self.chunks, float(self.longest[chosen].max()), len(chosen))
            values = self.opened.predict(self.rows.frame[chosen], task["which"])
            self.faults.after(time.monotonic() - began)
            values[: self.faults.spoiled()] = np.nan
            answered = {"values": encoded(values, "<f8"), "rescued": self.opened.rescued - rescued}
            if self.opened.tokens_per_batch != budget:
                smaller = f"batches of {self.opened.tokens_per_batch} tokens from here on"
                print(f"problem: {self.name}: memory ran out; {smaller}", file=sys.stderr, flush=True)
            yield answered | {"seconds": time.monotonic() - began}
        except MemoryError as error:
            yield {"failed": "memory", "message": f"out of memory: {one_line(error)}"}
        except Exception as error:
            self._close()
            expected = isinstance(error, PodiumError)
            message = one_line(error) if expected else f"{type(error).__name__}: {one_line(error)}"
            yield {"failed": "broken", "message": message}

    def _open(self, name: str) -> float | None:
        """Seconds that opening the fold model in the folder `name` took; None where it is open already."""
        if name == self.name:
            return None
        began = time.monotonic()
        self._close()
        refuse_broken(name, self.broken)
        devices, token_cache = [self.settings["device"]], Path(self.settings["token_cache"])
        self.opened = open_member(
            self.package / name, Artifacts(self.package), self.rows.competition, devices, token_cache
        )
        self.name = name
        self.faults.after(time.monotonic() - began)
        return time.monotonic() - began

    def _memory(self) -> float:
        """Megabytes that this process holds: on its GPU, or on a CPU altogether."""
        if self.settings["device"] != "cpu":
            import torch

            return torch.cuda.memory_allocated() / 1e6
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _close(self) -> None:
        if self.opened:
            self.opened.close()
        self.opened, self.name = None, ""
        gc.collect()


def encoded(values: np.ndarray, dtype: str) -> str:
    """An array as text for a line of JSON."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=dtype).tobytes()).decode("ascii")


def decoded(text: str, dtype: str) -> np.ndarray:
    """The inverse of `encoded`, flat."""
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


def _lines() -> Iterator[str]:
    """The lines of the standard input; the process ends when it is closed, whatever it is doing."""
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
