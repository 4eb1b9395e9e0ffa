"""Runs the finished kernel as in the scored rerun under every fault of pipeline/package/faults.py, and prints a table.

python -m pipeline.package.try_faults [--run FOLDER] [--only WORDS] [--jobs 2] [--budget SECONDS]

FOLDER (by default this one) is that of a finished `make repro`. The test file is cut to 24 rows. Where anything can be
written, the kernel must end with exit code 0 within its budget and leave a file that the competition's checker accepts;
otherwise this command's exit code is 1. The log of a kernel that has failed is kept in work/kernel-faults/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.files import write_text
from pipeline.kinds import kind_of
from pipeline.package.faults import NAMESPACES, Cause, faults
from pipeline.package.scene import Given, Scene, read_given
from pipeline.stage import stage

LOGS = Path("work/kernel-faults")


@dataclass(frozen=True)
class TriedFault:
    """What the kernel did under one fault."""

    section: str
    fault: str
    code: int
    rows: int
    rung: str
    seconds: float
    verdict: str
    kept: bool
    """Whether the kernel has kept its promise."""
    log: str

    def line(self) -> str:
        """Returns a line of the table."""
        first = f"{self.section}: {self.fault}"
        return f"{first:<64} {self.code:>4} {self.rows:>5}  {self.verdict:<32} {self.rung}"


def try_faults(run: Path, only: str, jobs: int | None, budget: float | None) -> list[TriedFault]:
    """Runs the kernel under every fault whose section and name hold the words `only`; prints the table as it grows.

    jobs: kernels at a time, by default one per core, and a single one for networks. budget: seconds that each is told,
    by default three times what a first kernel without a fault takes, and at least 60.

    Raises: PodiumError where there is no package, no fault of that name, or that first kernel fails.
    """
    given = read_given(run / "artifacts" / "package", run / load_params(run / "params.yaml").data.path)
    chosen = [
        (section, name, cause)
        for section, causes in faults(given).items()
        for name, cause in causes.items()
        if only.lower() in f"{section}: {name}".lower()
    ]
    if not chosen:
        raise PodiumError(f"--only: expected words of a fault's name, found {only}; none has them")
    networks = any(kind_of(each["kind"]).network for each in given.manifest["members"].values())
    jobs = jobs or (1 if networks else os.cpu_count() or 1)
    whole = one(given, "rows", "no fault at all", lambda scene: None, budget or float(given.manifest["budget_seconds"]))
    if not whole.kept:
        raise PodiumError(f"the kernel fails without any fault: {whole.verdict}; see {kept_log(whole)}")
    budget = budget or max(60.0, 3.0 * whole.seconds)
    print(f"{len(chosen)} faults, {jobs} at a time, {budget:.0f} s at most each; without a fault {whole.seconds:.1f} s")
    print(f"{'fault':<64} {'code':>4} {'rows':>5}  {'checker':<32} rung", flush=True)
    found = []
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda each: one(given, each[0], each[1], each[2], budget), possible(chosen)):
            found.append(outcome)
            print(outcome.line(), flush=True)
            if not outcome.kept:
                print(f"  its log: {kept_log(outcome)}", flush=True)
    return found


def possible(chosen: list[tuple[str, str, Cause]]) -> Iterator[tuple[str, str, Cause]]:
    """Yields the faults that this system lets us cause, and names the others."""
    try:
        mounts = not subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode
    except OSError:
        mounts = False
    for section, name, cause in chosen:
        if mounts or not name.startswith(NAMESPACES):
            yield section, name, cause
        else:
            print(f"left out, for this system lets nobody mount a file system of their own: {section}: {name}")


def one(given: Given, section: str, name: str, cause: Cause, budget: float) -> TriedFault:
    """Runs the kernel under one fault."""
    with tempfile.TemporaryDirectory(prefix="podium-fault-", ignore_cleanup_errors=True) as folder:
        scene = Scene(given, Path(folder), budget)
        cause(scene)
        ran = scene.run()
        rows, rung = scene.answered(ran.log)
        wrong = scene.verdict()
        if not scene.writable and not rows:
            wrong, verdict = None, "nothing can be written"
        else:
            verdict = wrong or "accepted"
        if ran.code:
            wrong = verdict = f"exit code {ran.code}; {verdict}"
        if ran.seconds > budget:
            wrong = verdict = f"{ran.seconds:.0f} s of {budget:.0f}; {verdict}"
    return TriedFault(section, name, ran.code, rows, rung, ran.seconds, verdict, wrong is None, ran.log)


def kept_log(outcome: TriedFault) -> Path:
    """Keeps the log of a kernel and returns its place."""
    file = LOGS / f"{outcome.section}-{outcome.fault}.log".replace(" ", "-").replace("/", "-")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, outcome.log)
    return file


def main(run: Path, only: str, jobs: int | None, budget: float | None) -> None:
    """Prints table and sum; ends with exit code 1 where the kernel has not kept its promise."""
    shutil.rmtree(LOGS, ignore_errors=True)
    began = time.monotonic()
    found = try_faults(run, only, jobs, budget)
    failed = [outcome for outcome in found if not outcome.kept]
    print(f"{len(found)} faults, {len(failed)} failed, in {(time.monotonic() - began) / 60:.1f} minutes")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("."), metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="WORDS", help="of the faults to try, as the table writes them")
    parser.add_argument("--jobs", type=int, metavar="N", help="kernels at a time")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of each kernel")
    arguments = parser.parse_args()
    with stage("kernel-faults", keep_seconds=False):
        main(arguments.run, arguments.only, arguments.jobs, arguments.budget)
