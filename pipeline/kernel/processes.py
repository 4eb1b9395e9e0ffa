"""The supervisor's side of its workers: which devices there are, starting a process on each, its messages, its end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.kernel.faults import Faults
from pipeline.kernel.inputs import Call
from pipeline.planning.cost import device_kind

Message = tuple["Process", dict[str, Any] | None]
"""What a process says; None when it has ended."""


@dataclass(frozen=True)
class Device:
    """Something to compute on."""

    name: str
    """`cpu`, `cpu:1` (a second one on purpose), `cuda:0`, ..."""
    model: str
    """`cpu`, or what the GPU calls itself."""

    @property
    def kind(self) -> str:
        """`cpu`, `t4` or `gpu`."""
        return device_kind(self.model)


def find_devices(faults: Faults) -> list[Device]:
    """Every GPU, and the CPU, which runs what needs no GPU. The driver's tool is asked: the supervisor uses no GPU."""
    if "devices" in faults:
        return [Device(f"cpu:{number}", "cpu") for number in range(int(faults.asked["devices"]))]
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        names = [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        names = []
    return [*(Device(f"cuda:{number}", name) for number, name in enumerate(names)), Device("cpu", "cpu")]


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Process:
    """One worker process on a device."""

    device: Device
    call: Call
    faults: Faults
    messages: queue.SimpleQueue[Message]
    token_cache: Path
    """The folder in which all processes keep the token ids of texts."""
    ready: bool = False
    child: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self, place: int, threads: int) -> None:
        """Starts it; `place` is the device's number among all, `threads` are its share of the CPU."""
        gpu = self.device.name.startswith("cuda")
        settings = {
            "package": str(self.call.package),
            "data": str(self.call.data),
            "rerun": self.call.rerun,
            "broken": self.call.broken,
            "token_cache": str(self.token_cache),
            "device": "cuda:0" if gpu else "cpu",
            "refused": place == self.faults.asked.get("lost"),
            "faults": asdict(self.faults)["asked"],
            "first": self.faults.first,
        }
        paths = [path for path in (*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)) if path]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(threads),
            "RAYON_NUM_THREADS": str(threads),  # of the tokenizers library
            "CUDA_VISIBLE_DEVICES": self.device.name.removeprefix("cuda:") if gpu else "",
        }
        self.child = subprocess.Popen(
            [sys.executable, "-u", "-m", "pipeline.kernel.worker", json.dumps(settings)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            cwd=Path(self.call.working),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Hands over a chunk; a process that has ended says so by itself."""
        assert self.child and self.child.stdin
        try:
            self.child.stdin.write(json.dumps(message) + "\n")
            self.child.stdin.flush()
        except OSError:
            pass

    def end(self) -> None:
        """Ends it at once, with everything that it has started."""
        if self.child and self.child.poll() is None:
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except OSError:
                self.child.kill()

    def _read(self) -> None:
        assert self.child and self.child.stdout
        for line in self.child.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # the last line of a process that was killed in the middle of it
                continue
            self.messages.put((self, message))
        self.child.wait()
        self.messages.put((self, None))
