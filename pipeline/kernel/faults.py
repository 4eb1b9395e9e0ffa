"""Faults on purpose, for tests and for those who want to see what the kernel does: PODIUM_FAULTS=kill=3,slow=5

Each is `name` or `name=number`, separated by commas. Without the variable nothing in here does anything.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass

from pipeline.errors import PodiumError

KNOWN = {
    "kill": "the first process of each worker is killed so many seconds after it is ready",
    "kills": "every process of each worker is killed so many seconds after it is ready",
    "hang": "the first process of each worker stops answering at its chunk of that number",
    "poison": "the GPU of the first worker's first process is of no more use from its chunk of that number on",
    "memory": "a chunk of more than one row that holds a text of more characters than that runs out of memory",
    "nan": "every chunk answers that many of its rows with numbers that are none",
    "slow": "everything takes that many times as long",
    "devices": "that many devices are found, whatever the machine has",
    "lost": "the device of that number cannot be opened",
    "stumble": "the supervisor fails at its message of that number, and again after it has begun anew",
    "plan": "no plan can be made",
    "fall": "the kernel's own process is killed so many seconds after its workers were started",
    "full": "no results can be kept on disk",
    "wheels": "the wheels cannot be unpacked",
    "clock": "the wall clock jumps by that many seconds, once a worker runs",
}
FAULTS_VARIABLE = "PODIUM_FAULTS"


@dataclass(frozen=True)
class Faults:
    """The faults of one process."""

    asked: dict[str, float]
    first: bool = True
    """Whether this is the first process of its worker."""
    worker: int = 0
    """The worker's number."""

    def __contains__(self, name: str) -> bool:
        return name in self.asked

    def begin(self) -> None:
        """Starts what shall happen later; called once when a worker is ready."""
        kill_this_process(self.asked.get("kills", self.asked.get("kill") if self.first else None))
        if "clock" in self:  # nothing may depend on the wall clock
            real, jump = time.time, self.asked["clock"]
            time.time = lambda: real() + jump

    def fall(self) -> None:
        """Starts what shall happen later to the supervisor's own process; called once when it has begun."""
        kill_this_process(self.asked.get("fall"))

    def before(self, chunk: int, longest: float, rows: int) -> None:
        """Hangs or raises before chunk number `chunk` of `rows` rows, whose longest text has `longest` characters."""
        if self.first and chunk == self.asked.get("hang"):
            time.sleep(1.0e6)
        self.touch(chunk)
        if rows > 1 and longest > self.asked.get("memory", float("inf")):
            raise MemoryError("on purpose")

    def touch(self, chunk: int) -> None:
        """Raises RuntimeError where the GPU is of no more use at chunk number `chunk`: any call of it would fail."""
        if self.first and not self.worker and chunk >= self.asked.get("poison", float("inf")):
            raise RuntimeError("CUDA error: an illegal memory access was encountered, on purpose")

    def after(self, seconds: float) -> None:
        """Waits after something that has taken `seconds`, where everything shall be slower."""
        if "slow" in self.asked:
            time.sleep(seconds * max(self.asked["slow"] - 1.0, 0.0))

    def spoiled(self) -> int:
        """Returns how many rows of a chunk shall be answered with NaN."""
        return int(self.asked.get("nan", 0))


def kill_this_process(after: float | None) -> None:
    """Kills this process after so many seconds, or never."""
    if after is not None:
        timer = threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()


def read_faults(text: str, strict: bool) -> tuple[Faults, list[str]]:
    """Returns the faults that `text` names, and what is wrong with it; if `strict`, the latter raises PodiumError."""
    asked: dict[str, float] = {}
    problems: list[str] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, number = part.partition("=")
        try:
            if name not in KNOWN:
                raise ValueError(name)
            asked[name] = float(number or 1)
        except ValueError:
            problems.append(f"{FAULTS_VARIABLE}: expected name=number with a name of {', '.join(KNOWN)}, found {part}")
    if problems and strict:
        raise PodiumError(problems[0])
    return Faults(asked), problems
