"""One fold over several devices: starts a process for each, and ends all with the first that fails.

pipeline/training/devices/ranks.py says what each of them does.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import distributed

from pipeline.errors import PodiumError
from pipeline.stage import escape_console, one_line
from pipeline.training.devices.ranks import Share

T = TypeVar("T")

CARDS = "CUDA_VISIBLE_DEVICES"
LOCAL = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""The ranks of a fold stand on one machine, and nobody else can reach them."""
PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others, of which one may be writing: that one has ended is seen by their parent."""
SETTLED = 1.0
"""Seconds in which a rank that was killed is seen to be gone, after another has missed it."""


def on_devices(devices: int, label: str, call: Callable[..., T], *given: Any) -> T:
    """Makes a call on so many devices, in a process for each where there are several; returns what the first returned.

    Each has a GPU to itself where there is any. With one that fails all end; none is left when this process is gone, in
    whatever way.

    Raises: PodiumError where there are GPUs, but too few, or where a rank was killed; what a rank raises, if it is one.
    """
    if devices == 1:
        return call(*given)
    cards, context, asked = _cards(devices, label), get_context("spawn"), pickle.dumps((call, given))
    ranks: list[tuple[BaseProcess, Connection]] = []
    resource_tracker.ensure_running()  # what the first process would start; doing so lets Ctrl-C through
    # Ranks inherit the mask: a Ctrl-C is their parent's alone, which then ends them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    environment = {key: os.environ.get(key) for key in (CARDS, *LOCAL)}
    with TemporaryDirectory(prefix="podium-") as folder:
        try:
            os.environ |= {key: value for key, value in LOCAL.items() if sys.platform == "linux"}
            for rank in range(devices):
                if cards:
                    os.environ[CARDS] = cards[rank]  # before the process loads CUDA, which looks at it once
                here, there = context.Pipe()
                its = (Share(rank, devices), folder, there, asked)
                started = context.Process(target=_rank, args=its, daemon=True)
                started.start()
                there.close()
                ranks.append((started, here))
            _set(environment)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return _answer(label, ranks)
        finally:
            _set(environment)
            for process, _ in ranks:
                process.kill()
            for process, _ in ranks:
                process.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set(environment: dict[str, str | None]) -> None:
    for key, value in environment.items():
        os.environ.pop(key, None)
        if value is not None:
            os.environ[key] = value


def _cards(devices: int, label: str) -> list[str]:
    """Returns the name of each rank's GPU, as CUDA_VISIBLE_DEVICES has it; none where there is no GPU at all."""
    count = torch.cuda.device_count()
    if count and count < devices:
        raise PodiumError(f"{label}: devices: expected at most {count}, the GPUs of this machine, found {devices}")
    names = os.environ.get(CARDS) or ",".join(map(str, range(count)))
    return [each.strip() for each in names.split(",")] if count else []


def _answer(label: str, ranks: list[tuple[BaseProcess, Connection]]) -> Any:
    """Waits for all ranks, and returns what the first has sent; raises what became of the first that failed."""
    answer, running = None, {pipe: number for number, (_, pipe) in enumerate(ranks)}
    while running:
        for pipe in wait(list(running)):
            assert isinstance(pipe, Connection)
            number = running.pop(pipe)
            try:
                done, said = pipe.recv()
            except (EOFError, ConnectionResetError):
                raise _gone(label, ranks, number) from None
            if done:
                answer = said if number == 0 else answer
            elif isinstance(said, PodiumError):
                raise said
            else:
                others = {each.sentinel: other for other, (each, _) in enumerate(ranks) if other != number}
                for sentinel in wait(list(others), timeout=SETTLED):
                    if ranks[others[sentinel]][0].exitcode:  # type: ignore[index]
                        raise _gone(label, ranks, others[sentinel])  # type: ignore[index]
                raise RuntimeError(f"{label}: process {number + 1} of {len(ranks)}:\n{said}")
    return answer


def _gone(label: str, ranks: list[tuple[BaseProcess, Connection]], number: int) -> PodiumError:
    process = ranks[number][0]
    process.join()
    code = process.exitcode or 0
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return PodiumError(
        f"{label}: process {number + 1} of {len(ranks)} was {how}, and the others with it; run it again: it goes on "
        "from its last checkpoint"
    )


def _rank(share: Share, folder: str, pipe: Connection, asked: bytes) -> None:
    """Makes the pickled call as one rank, and sends (True, its answer) or (False, what was raised)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    escape_console()
    if not share.leads and os.environ.get("PODIUM_DEBUG") != "1":
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
    try:
        call, given = pickle.loads(asked)  # here: what it imports takes seconds, in which the parent may be killed
        store = distributed.FileStore(f"{folder}/ranks", share.ranks)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, store=store, rank=share.rank, world_size=share.ranks, timeout=PATIENCE)
        answer = call(*given)
        distributed.destroy_process_group()
    except Exception as error:
        told: PodiumError | str = traceback.format_exc()
        if line := one_line(error):
            told = error if isinstance(error, PodiumError) else PodiumError(line)
        pipe.send((False, told))
        pipe.recv()  # until this process is ended: the others would fail with it, and say so first
    pipe.send((True, answer))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
