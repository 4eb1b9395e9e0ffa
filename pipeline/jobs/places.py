"""Places of a Ray that is started for one build and gone with it, or of a cluster that runs: a stage runs on each."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from pipeline.errors import UNDER_REPRO

OBJECT_STORE = 80 * 2**20
"""Bytes for what tasks say, which is lines of text; Ray takes no less."""
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a stage that asks for no card sees what it saw without Ray
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to Ray's makers
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill stages when other programs take the memory
    UNDER_REPRO: "1",
}
ALONE = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as on those systems Ray listens on 127.0.0.1 alone
}
CLONE = "PODIUM_CLONE"
"""Set where `ray start` joins a cluster: this machine's clone."""
CARDS, CHOSEN = "CUDA_VISIBLE_DEVICES", "as Ray gives"
END = "\0"
"""Before the answer of pipeline.jobs.work."""
worker: subprocess.Popen[str] | None = None
"""In a Ray worker: the process that runs stages, one after the other; DVC takes a second to load."""


@dataclass(frozen=True)
class Places:
    """What the stages of a build may ask for."""

    cards: bool
    """There are GPUs."""
    cores: float = 1.0
    """What a stage takes of what Ray counts as cores, for each device that it trains on."""
    most: float = math.inf
    """Of them, on one machine."""
    memory: int = 0
    """Bytes, 0 where Ray does not count them."""
    home: str = ""
    """Of a cluster: the driver's node."""


def run_stage(folder: str, request: dict[str, Any]) -> Iterator[str | dict[str, Any]]:
    """Yields the names of this machine and of its Ray node, what a stage prints, and the answer of pipeline.jobs.work,
    or of what it `died`.

    folder: the clone, or empty for this machine's own. It runs in a Ray worker, which may know no pipeline.
    """
    import ray

    global worker
    if worker is None or worker.poll() is not None:
        paths = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        command, pipe = [sys.executable, "-u", "-m", "pipeline.jobs.work"], subprocess.PIPE
        worker = subprocess.Popen(
            command, cwd=folder or os.environ[CLONE], env=os.environ | {"PATH": paths}, text=True,
            errors="backslashreplace", start_new_session=True, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT,
        )  # fmt: skip
    assert worker.stdin and worker.stdout
    environment = request["environment"]
    if environment[CARDS] == CHOSEN:
        environment = environment | {CARDS: os.environ[CARDS]}
    worker.stdin.write(json.dumps(request | {"environment": environment}) + "\n")
    worker.stdin.flush()
    yield platform.node()
    yield ray.get_runtime_context().get_node_id()
    for line in worker.stdout:
        text, ended, answer = line.rstrip("\n").partition(END)
        if text or not ended:
            yield text
        if ended:
            yield json.loads(answer)
            return
    code = worker.wait()
    # A defect of its own ends it with a code; what kills it is the machine's affair, which may be about to go.
    yield {"code": code} if code > 0 else {"died": f"the process of its stages ended with {code}"}


@contextmanager
def local_ray(jobs: int) -> Iterator[Places]:
    """Holds a Ray with `jobs` places on this machine alone, which nobody else can reach.

    At the end none of its processes is left, nor any that they have started.
    """
    os.environ |= QUIET | ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    folder = tempfile.mkdtemp(prefix="podium-")  # a short path: Ray's sockets lie there
    try:
        ray.init(
            address="local",
            num_cpus=jobs,
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            _temp_dir=folder,
        )
        yield Places(cards=ray.cluster_resources().get("GPU", 0) > 0, most=jobs)
    finally:
        started = psutil.Process().children(recursive=True)
        ray.shutdown()
        for process in psutil.wait_procs(started, timeout=3)[1]:
            process.kill()
        psutil.wait_procs(started, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[UNDER_REPRO]
