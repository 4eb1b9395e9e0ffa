"""Commands as processes of their own and what they take, and clones of this checkout to run them in."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import ROOT


@dataclass(frozen=True)
class Used:
    """What a command took, the processes that it started included."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Of the largest process, in 10^6 bytes; a child's peak counts from what its parent held, so keep that small."""
    output: str
    """What it wrote to stdout."""


def run(command: list[str], cwd: Path = ROOT, environment: dict[str, str] | None = None) -> Used:
    """Runs a command to its end, with this Python's folder first on PATH.

    Raises: SystemExit with the end of its output where it fails.
    """
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": paths, "DVC_NO_ANALYTICS": "1"} | (environment or {})
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=variables, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        output = out.read()
        if status:
            ends = f"{output[-3000:]}\n{errors.read()[-3000:]}"
            killed = " (killed, perhaps for want of memory)" if process.returncode < 0 else ""
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}{killed}\n{ends}")
    cpu = usage.ru_utime + usage.ru_stime
    return Used(round(seconds, 2), round(cpu, 2), round(usage.ru_maxrss * 1024 / 1e6, 1), output)


def clone(target: Path) -> Path:
    """Clones the committed state of this checkout to `target`, with this checkout's environment, which git ignores."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(target)], check=True)
    (target / ".venv").symlink_to(ROOT / ".venv")
    (target / ".git" / "info" / "exclude").write_text(".venv\n")
    return target
