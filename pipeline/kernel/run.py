"""The kernel after kaggle_kernels/inference/main.py has checked the package: budget, libraries, then the supervisor.

It imports the standard library alone until the package's own wheels come first on the path; hence no Artifacts here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path

from pipeline.errors import PodiumError
from pipeline.kernel.faults import FAULTS_VARIABLE, read_faults
from pipeline.kernel.inputs import KernelInputs, read_budget
from pipeline.planning.budget import margin

ABI = re.compile(r"-cp3(\d+)-abi3-")
"""In a wheel's name: the oldest Python that it is for."""


def run(package: Path, data: Path, working: Path, started: float, rerun: bool, broken: dict[str, str]) -> None:
    """Predicts `data`'s test rows with the members of `package` and keeps `working/submission.csv` the best so far.

    `started` is the start of the process on time.monotonic()'s clock; `broken` says what is wrong with files of the
    package (path -> problem; empty in the dress rehearsal). The prior's submission.csv must stand there already.

    Raises: PodiumError in the dress rehearsal, where it also writes `working/rehearsal.json`.
    """
    manifest = json.loads((package / "MANIFEST.json").read_text(encoding="utf-8"))
    budget = read_budget(manifest["budget_seconds"], rerun)
    faults, problems = read_faults(os.environ.get(FAULTS_VARIABLE, ""), strict=not rerun)
    for problem in problems:
        print(f"problem: {problem}", flush=True)
    on_kaggle = not os.environ.get("PODIUM_INPUT")  # which says elsewhere what lies in /kaggle/input there
    inputs = KernelInputs(package, data, working, started, budget, rerun, broken, faults, on_kaggle)
    if time.monotonic() >= inputs.deadline:
        print(f"a budget of {budget:g} s leaves no time for any step: the prior stays", flush=True)
        return
    timer = _last_resort(inputs.deadline + margin(budget) / 2, rerun)
    try:
        _serve(inputs, manifest["wheels"], manifest.get("rehearse_rows", 0) if on_kaggle and not rerun else 0)
    finally:
        timer.cancel()


def _last_resort(end: float, rerun: bool) -> threading.Timer:
    """Starts a timer that ends this process at `end`, wherever it hangs: submission.csv is whole at any time."""

    def leave() -> None:
        print("problem: the budget is all but over; the best submission so far stays", flush=True)
        os._exit(0 if rerun else 2)

    timer = threading.Timer(min(max(end - time.monotonic(), 0.1), threading.TIMEOUT_MAX), leave)
    timer.daemon = True
    timer.start()
    return timer


def _serve(inputs: KernelInputs, wheels: list[str], full_size: int) -> None:
    """Unpacks the wheels and runs the supervisor; in the scored rerun a second time, where the first has failed; after
    the dress rehearsal once more on `full_size` rows, where that is not 0."""
    with ExitStack() as end:
        try:
            libraries = unpack_wheels(inputs, wheels)
            end.callback(shutil.rmtree, libraries, ignore_errors=True)
            sys.path.insert(0, str(libraries))
        except PodiumError as error:
            if not inputs.rerun:
                raise
            print(f"problem: {error}; going on with the image's own libraries", flush=True)
        scratch = Path(tempfile.mkdtemp(prefix="podium-results-"))
        end.callback(shutil.rmtree, scratch, ignore_errors=True)
        from pipeline.kernel.serve import serve

        for attempt in (1, 2):
            try:
                serve(inputs, scratch)
                if full_size:
                    from pipeline.kernel.full_size import rehearse_full_size

                    rehearse_full_size(inputs, full_size, scratch)
                return
            except Exception as error:
                # What has been computed is on disk, so that a second attempt begins where the first has ended.
                if not inputs.rerun or attempt == 2 or time.monotonic() >= inputs.deadline:
                    raise
                print(f"problem: {type(error).__name__}: {' '.join(str(error).split())}; once more", flush=True)


def unpack_wheels(inputs: KernelInputs, wheels: list[str]) -> Path:
    """Unpacks the package's wheels, whose hashes have been checked, into a fresh folder: an eighth of pip's time.

    None of them has more to install than its files. Raises: PodiumError where one cannot be unpacked, is for a newer
    Python, or has files that belong elsewhere; nothing stays of the others then.
    """
    folder, began = Path(tempfile.mkdtemp(prefix="podium-wheels-")), time.monotonic()
    try:
        if "wheels" in inputs.faults:
            raise PodiumError("wheels: on purpose")
        for wheel in wheels:
            if (asked := ABI.search(wheel)) and int(asked[1]) > sys.version_info[1]:
                raise PodiumError(f"{wheel}: needs Python 3.{asked[1]}, found 3.{sys.version_info[1]}")
            try:
                with zipfile.ZipFile(inputs.package / wheel) as archive:
                    archive.extractall(folder)
            except (OSError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
                raise PodiumError(f"{wheel}: cannot be unpacked: {error}") from None
        if elsewhere := sorted(folder.glob("*.data")):
            raise PodiumError(f"wheels: expected files for one folder, found {elsewhere[0].name}")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    print(f"{len(wheels)} wheels unpacked in {time.monotonic() - began:.1f} s", flush=True)
    return folder
