"""Pushes the inference kernel to Kaggle: its metadata, the push, the run, and what the run leaves.

A pushed version runs once at once: the kernel's dress rehearsal, on Kaggle's own machine.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.config import Package
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.kaggle.cli import PAGE_SIZE, KaggleError, Patience, json_in, kaggle
from pipeline.kaggle.waiting import wait
from pipeline.ledger.ledger import clock
from pipeline.machines import MACHINES
from pipeline.package.bases import base_slug, bases_of
from pipeline.package.rehearse import KERNEL

KERNEL_METADATA = KERNEL.with_name("kernel-metadata.json")
REHEARSAL, SUBMISSION = "rehearsal.json", "submission.csv"
LOG_LINES = 25

FIXED = {
    "is_private": True,
    "enable_tpu": False,
    "enable_internet": False,
}


def filled_metadata(settings: Package, competition: Competition) -> dict[str, Any]:
    """Returns kernel-metadata.json with the user's name, the machine and the sources; what else stands there is kept.

    Raises: PodiumError where the file is missing, is no JSON, or has no id.
    """
    try:
        metadata = read_json(KERNEL_METADATA)
        slug = str(metadata["id"]).rpartition("/")[2]
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = f"expected JSON with an id like owner/name, found none ({' '.join(str(error).split())})"
        raise PodiumError(f"{KERNEL_METADATA}: {what}; `git checkout {KERNEL_METADATA}` restores it") from None
    slugs = [settings.slug, *map(base_slug, bases_of(Artifacts().package).values())]
    sources = {"dataset_sources": [f"{settings.owner}/{slug}" for slug in slugs]}
    sources["competition_sources"] = [competition.name]
    machine = MACHINES[settings.machine]
    lent = {"enable_gpu": machine.gpu, "machine_shape": machine.shape}
    return metadata | {"id": f"{settings.owner}/{slug}"} | FIXED | lent | sources


def push_command(settings: Package) -> list[str]:
    """Returns the CLI's words that push kaggle_kernels/inference."""
    command = ["kernels", "push", "-p", str(KERNEL.parent), "-t", str(settings.budget_seconds)]
    # Said twice: there are reports of the metadata's machine_shape doing nothing, and of the option doing nothing.
    shape = MACHINES[settings.machine].shape
    return [*command, "--accelerator", shape] if shape else command


def quota(settings: Package, patience: Patience) -> str:
    """Returns in words what is left of the week's GPU hours, and what one run may take of them."""
    most = f"a run takes at most {clock(settings.budget_seconds)}"
    if not MACHINES[settings.machine].gpu:
        return f"GPU quota: package.machine {settings.machine} takes none"
    try:
        told = json_in(kaggle("quota", "--format", "json", patience=replace(patience, attempts=1)))
        gpu = next(each for each in told if each["resource"] == "GPU")
        left = f"{gpu['remaining']} of {gpu['total']} left until {gpu['refreshAt'][:16]}"
    except (KaggleError, LookupError, TypeError, StopIteration) as error:
        left = f"not told ({str(error) or 'the CLI names no GPU'})"
    return f"GPU quota: {left}; {most}"


def push(kernel: str, settings: Package, patience: Patience) -> int:
    """Pushes kaggle_kernels/inference; returns the new version's number.

    Raises: KaggleError also where the CLI is content with a version that lacks its data.
    """

    pushed = re.compile(r"Kernel version (\d+) successfully pushed")

    def judge(printed: str) -> str | None:
        for line in printed.splitlines():
            if re.search(r"^Kernel push error:|not valid (dataset|competition|kernel) sources", line):
                return line
        return None if pushed.search(printed) else f"unexpected answer: {printed.strip()[-300:]}"

    version = int(pushed.findall(kaggle(*push_command(settings), patience=patience, judge=judge))[0])
    print(f"kernel {kernel}: version {version} pushed", flush=True)
    return version


def wait_for_run(kernel: str, version: int, limit: float, folder: Path, patience: Patience) -> None:
    """Waits up to `limit` seconds for the end of the newest version's run.

    Raises: PodiumError where it ended otherwise than COMPLETE, after printing the end of its log; the log is kept in
    `folder`.
    """

    def look() -> tuple[str, str | None]:
        printed = kaggle("kernels", "status", kernel, patience=patience)
        found = re.search(r'has status "(?:\w+\.)?(\w+)"', printed)
        state = found[1] if found else "unknown"
        if state == "COMPLETE":
            return state, state
        if state == "ERROR" or state.startswith("CANCEL"):
            message = re.search(r'Failure message: "(.*)"', printed)
            raise _failed(kernel, version, state, message[1] if message else "", folder, patience)
        return state, None

    wait(f"kernel {kernel} version {version}", look, limit, patience.poll)


def _failed(kernel: str, version: int, state: str, message: str, folder: Path, patience: Patience) -> PodiumError:
    """Prints the end of the log; returns the error that names its last word."""
    try:
        lines = fetch_output(kernel, folder, patience, needed=False)
    except KaggleError as error:
        lines = [f"(no log: {error})"]
    for line in lines[-LOG_LINES:]:
        print(f"kernel: {line}", flush=True)
    errors = [line for line in lines if line.startswith("error:")] or lines[-1:]
    what = message or (errors[-1] if errors else "no log")
    hint = f"log: {folder}; ARGS=--again pushes the same again"
    return PodiumError(f"kernel {kernel} version {version} ended in {state}: {what} ({hint})")


def fetch_output(kernel: str, folder: Path, patience: Patience, needed: bool = True) -> list[str]:
    """Fetches the run's log, rehearsal.json and submission.csv into `folder`; returns the log's lines.

    Raises: KaggleError where the files are `needed` and one is missing or not whole: the CLI writes whatever came.
    """

    def judge(_: str) -> str | None:
        try:
            missing = {"rows", "elapsed_seconds", "rungs"} - set(read_json(folder / REHEARSAL))
        except (OSError, ValueError, TypeError) as error:
            return f"{REHEARSAL}: expected the dress rehearsal's timings, found none ({error})"
        if not missing and not (folder / SUBMISSION).is_file():
            return f"{SUBMISSION}: expected the dress rehearsal's predictions, found none"
        return f"{REHEARSAL}: expected the keys {', '.join(sorted(missing))}" if missing else None

    folder.mkdir(parents=True, exist_ok=True)
    for name in (REHEARSAL, SUBMISSION):
        (folder / name).unlink(missing_ok=True)
    # The pattern is looked for on the first page only.
    wanted = ("--file-pattern", rf"^({re.escape(REHEARSAL)}|{re.escape(SUBMISSION)})$", "--page-size", PAGE_SIZE)
    command = ("kernels", "output", kernel, "-p", str(folder), "-o", *wanted)
    kaggle(*command, patience=patience, judge=judge if needed else lambda _: None)
    return log_lines(folder / f"{kernel.rpartition('/')[2]}.log")


def log_lines(path: Path) -> list[str]:
    """Returns the lines of a run's log, which Kaggle keeps as a JSON list of pieces of text."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    with suppress(ValueError, TypeError, KeyError):  # else it is plain text, or cut off
        text = "".join(piece["data"] for piece in json.loads(text))
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def predicted_seconds(rehearsal: dict[str, Any]) -> float | None:
    """Returns the most seconds that the scored rerun should need, from rehearsal.json; None without `hidden_rows`."""
    return (rehearsal.get("hidden") or {}).get("upper_seconds")
