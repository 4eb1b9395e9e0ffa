"""Places of a Ray that is started for one build and gone with it, or of one that is running: a stage runs on each."""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from pipeline.errors import UNDER_REPRO
from pipeline.jobs.work import END

OBJECT_STORE = 80 * 2**20
"""Bytes for what tasks say, which is lines of text; Ray takes no less."""
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a stage that asks for no card sees what it saw without Ray
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to Ray's makers
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill stages when other programs take the memory
}


CARDS, CHOSEN = "CUDA_VISIBLE_DEVICES", "as Ray gives"
worker: subprocess.Popen[str] | None = None
"""In a Ray worker: the process that runs stages, one after the other; DVC takes a second to load."""


def run_stage(name: str, folder: str, environment: dict[str, str | None]) -> Iterator[str | int]:
    """Yields this machine's name, what the stage `name` prints in the clone `folder`, line by line, and its exit code.

    It runs in a Ray worker.
    """
    global worker
    if worker is None or worker.poll() is not None:
        paths = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
        command, pipe = [sys.executable, "-u", "-m", "pipeline.jobs.work"], subprocess.PIPE
        worker = subprocess.Popen(
            command, cwd=folder, env=os.environ | {"PATH": paths}, text=True, errors="backslashreplace",
            start_new_session=True, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT,
        )  # fmt: skip
    assert worker.stdin and worker.stdout
    if environment.get(CARDS) == CHOSEN:
        environment = environment | {CARDS: os.environ[CARDS]}
    worker.stdin.write(json.dumps({"stage": name, "environment": environment}) + "\n")
    worker.stdin.flush()
    yield platform.node()
    for line in worker.stdout:
        text, ended, code = line.rstrip("\n").partition(END)
        if text or not ended:
            yield text
        if ended:
            yield int(code)
            return
    yield worker.wait()


@contextmanager
def local_ray(jobs: int) -> Iterator[int]:
    """Holds a Ray with `jobs` places on this machine alone, which nobody else can reach; yields how many cards it has.

    At the end none of its processes is left, nor any that they have started.
    """
    os.environ |= QUIET | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), UNDER_REPRO: "1"}
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
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield int(ray.cluster_resources().get("GPU", 0))
    finally:
        started = psutil.Process().children(recursive=True)
        ray.shutdown()
        for process in psutil.wait_procs(started, timeout=3)[1]:
            process.kill()
        psutil.wait_procs(started, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[UNDER_REPRO]
