"""The kernel after kaggle_kernels/inference/main.py has checked the package: libraries, budget, then the steps.

It imports the standard library alone until the package's own wheels stand first on the path.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.errors import PodiumError

PIP_SECONDS = 600.0


def run(package: Path, data: Path, working: Path, started: float, rerun: bool, broken: dict[str, str]) -> None:
    """Predicts `data`'s test rows with the members of `package` and keeps `working/submission.csv` the best so far.

    `started` is the start of the process on time.monotonic()'s clock; `broken` says what is wrong with files of the
    package (path -> problem; empty in the dress rehearsal). The prior's submission.csv must stand there already.

    Raises: PodiumError in the dress rehearsal, where it also writes `working/rehearsal.json`.
    """
    manifest = json.loads((package / "MANIFEST.json").read_text(encoding="utf-8"))
    budget = _budget(manifest, rerun)
    deadline = started + budget - margin(budget)
    if time.monotonic() >= deadline:
        print(f"a budget of {budget:g} s leaves no time for any step: the prior stays", flush=True)
        return
    try:
        sys.path.insert(0, str(_install(package, manifest["wheels"], deadline)))
    except PodiumError as error:
        if not rerun:
            raise
        print(f"problem: {error}; going on with the image's own libraries", flush=True)
    from pipeline.inference.job import open_job
    from pipeline.inference.steps import run_steps

    run_steps(open_job(package, data, working, rerun, broken), started, deadline, budget)


def margin(budget: float) -> float:
    """Seconds at the end of the budget in which no step may run: 5 % of it, at least 10 seconds."""
    return max(10.0, 0.05 * budget)


def _budget(manifest: dict, rerun: bool) -> float:
    """PODIUM_BUDGET_SECONDS where it is a positive number, else the package's own budget."""
    asked = os.environ.get("PODIUM_BUDGET_SECONDS", "")
    try:
        budget = float(asked or manifest["budget_seconds"])
        if budget > 0:
            return budget
    except ValueError:
        pass
    if not rerun:
        raise PodiumError(f"PODIUM_BUDGET_SECONDS: expected a positive number of seconds, found {asked}")
    print(f"problem: PODIUM_BUDGET_SECONDS is {asked}; the package's budget is used", flush=True)
    return float(manifest["budget_seconds"])


def _install(package: Path, wheels: list[str], deadline: float) -> Path:
    """A fresh folder with the package's wheels, without a look at the network or at what is installed.

    Raises: PodiumError where pip fails or takes too long.
    """
    folder, began = Path(tempfile.mkdtemp(prefix="podium-wheels-")), time.monotonic()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    options = [
        "--isolated",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
        "--target",
        str(folder),
    ]
    command = [sys.executable, "-m", "pip", "install", *options, *(str(package / wheel) for wheel in wheels)]
    limit = max(1.0, min(PIP_SECONDS, deadline - began))
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PodiumError(f"wheels: pip install failed: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise PodiumError(f"wheels: pip install failed: {lines[0] if lines else f'exit code {done.returncode}'}")
    print(f"{len(wheels)} wheels installed in {time.monotonic() - began:.1f} s", flush=True)
    return folder
