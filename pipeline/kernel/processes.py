"""The supervisor's side of its workers: which devices there are, the process on each, its messages and its end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError
from pipeline.kernel.faults import Faults
from pipeline.kernel.inputs import KernelInputs
from pipeline.kernel.worker import WorkerSettings
from pipeline.machines import MACHINES
from pipeline.planning.cost import WorkerDevice

Message = tuple["Process", dict[str, Any] | None]
"""A process and what it says; None when it has ended."""


def find_devices(faults: Faults) -> list[WorkerDevice]:
    """Returns every GPU that CUDA_VISIBLE_DEVICES leaves us, and the CPU, which runs what needs none.

    The driver's tool names them: no GPU is used here.
    """
    if "devices" in faults:
        return [WorkerDevice(f"cpu:{number}", "cpu") for number in range(int(faults.asked["devices"]))]
    asked = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        lines = done.stdout.splitlines() if done.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        lines = []
    cards = [[part.strip() for part in line.split(",", 2)] for line in lines if line.count(",") >= 2]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = [index for index, _, _ in cards] if visible is None else [each.strip() for each in visible.split(",")]
    devices = []
    for each in chosen:
        names = [
            name for index, uuid, name in cards if each == index or (each.startswith("GPU-") and uuid.startswith(each))
        ]
        if not names:
            break  # CUDA, too, sees no card from an entry on that names none
        devices.append(WorkerDevice(f"cuda:{each}", names[0]))
    return [*devices, WorkerDevice("cpu", "cpu")]


def check_machine(asked: str, devices: Sequence[WorkerDevice]) -> None:
    """Raises PodiumError where the GPUs among `devices` are not those of the machine that Kaggle was `asked` for."""
    gpus = [device for device in devices if device.name.startswith("cuda")]
    machine = MACHINES[asked]
    if [device.hardware for device in gpus] != [machine.card] * machine.count:
        found = ", ".join(device.model for device in gpus) or "no GPU"
        raise PodiumError(
            f"params.yaml: package.machine: asked Kaggle for {asked}, found {found}; it may not lend this machine to "
            f"you or for this competition"
        )


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Process:
    """A worker process on a device."""

    device: WorkerDevice
    inputs: KernelInputs
    faults: Faults
    messages: queue.SimpleQueue[Message]
    token_cache: Path
    """The folder in which all processes keep the token ids of texts."""
    ready: bool = False
    child: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self, number: int, threads: int) -> None:
        """Starts the process; `number` is that of its device among all, `threads` are its share of the CPU."""
        gpu = self.device.name.startswith("cuda")
        settings = WorkerSettings(
            package=str(self.inputs.package),
            data=str(self.inputs.data),
            rerun=self.inputs.rerun,
            broken=self.inputs.broken,
            token_cache=str(self.token_cache),
            device="cuda:0" if gpu else "cpu",
            refused=number == self.faults.asked.get("lost"),
            faults=self.faults,
        )
        paths = [path for path in (*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep)) if path]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(threads),
            "RAYON_NUM_THREADS": str(threads),  # of the tokenizers library
            "CUDA_VISIBLE_DEVICES": self.device.name.removeprefix("cuda:") if gpu else "",
        }
        self.child = subprocess.Popen(
            [sys.executable, "-u", "-m", "pipeline.kernel.worker", json.dumps(asdict(settings))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            cwd=self.inputs.working,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Sends a line of JSON; a process that has ended says so by itself."""
        assert self.child and self.child.stdin
        try:
            self.child.stdin.write(json.dumps(message) + "\n")
            self.child.stdin.flush()
        except OSError:
            pass

    def end(self) -> None:
        """Ends the process at once, with everything that it has started."""
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
