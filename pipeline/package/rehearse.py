"""Runs the kernel here as on Kaggle: the real script, the mounts that it will find, no network, a bare environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifacts import DATASET_METADATA, MANIFEST
from pipeline.competitions.task import competition_from_json
from pipeline.errors import PodiumError
from pipeline.files import atomic_file, read_json, write_json, write_text
from pipeline.kernel.submission import validate_submission
from pipeline.package.bases import BASE, CONTENT, base_slug, base_text, bases_of
from pipeline.package.offline import offline_command, offline_mode

KERNEL = Path("kaggle_kernels/inference/main.py")

METRIC_KEYS = (
    *("budget_seconds", "elapsed_seconds", "valid", "rungs", "rows", "rows_per_rung"),
    *("parity", "parity_max_abs_diff", "network", "plan", "timings", "hidden"),
)
"""The keys of metrics/rehearsal.json."""

PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PODIUM_DEBUG")
"""All that the kernel gets to see of our environment."""


def rehearse(package: Path, data: Path, submission: Path, metrics: Path, work: Path, mode: str | None = None) -> None:
    """Runs the kernel's dress rehearsal on `package` and the competition files in `data`.

    Writes `submission` and `metrics`, both checked and whole, and prints the kernel's log as it comes. `work` is where
    temporary folders go; `mode` is `namespace` or `sockets`, by default the first that works here.

    Raises: PodiumError where the kernel fails, or its submission is not valid.
    """
    mode = mode or offline_mode()
    competition = competition_from_json(read_json(package / MANIFEST)["competition"])
    with offline_kernel(package, data, work, mode) as (working, _):
        written = working / "submission.csv"
        validate_submission(written, data / competition.sample_submission, competition)
        if not (working / "rehearsal.json").is_file():
            raise PodiumError("params.yaml: package.budget_seconds: too short, the kernel could not begin a step")
        report = read_json(working / "rehearsal.json") | {"valid": True, "network": mode}
        with atomic_file(submission) as partial:
            shutil.copyfile(written, partial)
    write_json(metrics, {key: report[key] for key in METRIC_KEYS})


@contextmanager
def offline_kernel(
    package: Path, data: Path, work: Path, mode: str, rerun: bool = False
) -> Iterator[tuple[Path, list[str]]]:
    """Runs the kernel on `package` and the competition files in `data`, and prints its log as it comes.

    Yields the folder that it has written into, which lasts as long as the body, and the lines of its log. `rerun`: in
    the scored rerun's manner in place of the dress rehearsal's.

    Raises: PodiumError where the kernel fails.
    """
    competition = competition_from_json(read_json(package / MANIFEST)["competition"])
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=work.resolve()) as temporary:
        place = Path(temporary)
        mounted, working = place / "input", place / "working"
        _mount_package(package, mounted / "datasets")
        beside = [lookup.mounted("test") for lookup in competition.looked_up("test")]
        for name in (competition.test, competition.sample_submission, *dict.fromkeys(beside)):
            _mount(data / name, mounted / "competitions" / competition.name / name)
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {"PODIUM_INPUT": str(mounted), "PODIUM_WORKING": str(working)}
        environment |= {name: str(place / name.lower()) for name in ("HOME", "TMPDIR")}
        environment |= {"KAGGLE_IS_COMPETITION_RERUN": "1"} if rerun else {}
        for name in ("home", "tmpdir", "working"):
            (place / name).mkdir()
        print(f"rehearsal: network cut by {mode}", flush=True)
        command, environment = offline_command(KERNEL.resolve(), mode, place / "guard", environment)
        yield working, _run(command, environment, working)


def _mount_package(package: Path, datasets: Path) -> None:
    """Mounts a package as it will be on Kaggle: each base in a dataset of its own, and so out of its place."""
    bases, name = bases_of(package), read_json(package / DATASET_METADATA)["id"]
    if not bases:
        _mount(package, datasets / name)
    for path in sorted(package.rglob("*")) if bases else ():
        place = path.relative_to(package)
        if path.is_file() and not any(place.is_relative_to(base) for base in bases):
            _mount(path, datasets / name / place)
    for base, digest in bases.items():
        apart = datasets / Path(name).parent / base_slug(digest)
        _mount(package / base, apart / CONTENT)
        write_text(apart / BASE, base_text(base, read_json(package / MANIFEST)["files"]))


def _mount(source: Path, target: Path) -> None:
    if not source.exists():
        raise PodiumError(f"{source}: expected a file of the competition, found none")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def _run(command: list[str], environment: dict[str, str], working: Path) -> list[str]:
    """Prints the kernel's log line by line and returns it. Raises: PodiumError with its last line where it fails."""
    lines = []
    with subprocess.Popen(
        command, env=environment, cwd=working, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
    ) as process:
        for line in process.stdout or ():
            print(f"kernel: {line}", end="", flush=True)
            lines += [line.strip()] if line.strip() else []
    if process.returncode:
        last = lines[-1] if lines else "no output"
        raise PodiumError(f"rehearsal: the kernel ended with exit code {process.returncode}: {last}")
    return lines
