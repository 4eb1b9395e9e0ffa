"""Does the kernel keep its deadline in real processes, as in the scored rerun, under short budgets and every fault?

python -m benchmarks.kernel.real [--run FOLDER] [--times 5]
# 13 minutes on two cores with the demo's package; writes benchmarks/results/deadline-real.json

FOLDER (by default this one) is that of a finished `make repro`. First the full time is measured; then come budgets of
100, 50, 20 and 5 % of it, several times each, and each fault at 150 %. A run has failed where its exit code is not 0,
its file is not valid, or it has taken longer than its budget.
"""

from __future__ import annotations

import random
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.result import command_line, write
from pipeline.artifacts import Artifacts
from pipeline.competitions.family import average
from pipeline.competitions.submission import as_submitted
from pipeline.competitions.task import competition_from_json
from pipeline.config import load_params
from pipeline.ensemble.ladder import load_ladder
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.inference.predict import predict_member
from pipeline.ingest.prepare import read_test
from pipeline.kernel.submission import validate_submission
from pipeline.package.scene import run_script
from pipeline.stage import stage

SHARES = (1.0, 0.5, 0.2, 0.05)
FAULTS = ("kill={moment}", "kills={moment}", "hang=2", "memory=2000", "nan=1", "devices=2,lost=1", "full", "slow=5")
MORE = ("clock=-86400", "wheels")


@dataclass(frozen=True)
class Ran:
    """What one kernel did."""

    budget: float
    faults: str
    seconds: float
    code: int
    valid: bool
    rungs: str
    supervising: str
    log: str

    @property
    def failed(self) -> bool:
        """Whether the kernel broke its promise."""
        return self.code != 0 or not self.valid or self.seconds > self.budget


def main(run: Path, times: int, output: Path) -> None:
    if not (run / "artifacts" / "package" / "MANIFEST.json").is_file():
        raise PodiumError(f"{run}: no package here; `make repro` first, or name a run with --run")
    package, data = run / "artifacts" / "package", data_folder(run)
    first = kernel(package, data, 3600.0, "")
    if first.failed:
        raise SystemExit(first.log)
    full = first.seconds
    print(f"full: {full:.1f} s; {first.supervising}; rows per rung: {first.rungs}", flush=True)
    difference = compared(package, data, first)
    print(f"largest difference from the plain path: {difference:.1e}", flush=True)
    found: list[dict] = []
    draw = random.Random(7)
    # Shares of the full time without its margin, so that 100 % is enough.
    asked = [(share, "", f"{share:.0%}") for share in SHARES for _ in range(times)]
    asked += [(1.5, fault.format(moment=f"{draw.uniform(0, 0.6 * full):.1f}"), "") for fault in FAULTS + MORE]
    for share, faults, name in asked:
        ran = kernel(package, data, max(share * full, 1.0), faults)
        found.append({key: value for key, value in asdict(ran).items() if key != "log"} | {"failed": ran.failed})
        verdict = "FAILED" if ran.failed else "kept"
        shown = f"{name or faults:<24} {ran.seconds:7.1f} of {ran.budget:6.1f} s, exit code {ran.code}"
        print(f"{shown}, {verdict}; {ran.rungs}", flush=True)
    memory = re.findall(r"^step (\S+) fold (\d+): .* (\d+) MB", first.log, flags=re.MULTILINE)
    result = {
        "full_seconds": round(full, 1),
        "supervising": first.supervising,
        "difference_from_plain_path": difference,
        "worker_megabytes": {f"{member} fold {fold}": int(held) for member, fold, held in memory},
        "failed": sum(each["failed"] for each in found),
        "runs": found,
    }
    write("deadline-real", result, output)
    print(f"{len(found)} kernels, {result['failed']} failed")


def data_folder(run: Path) -> Path:
    """Returns the folder with the competition's files."""
    return run / load_params(run / "params.yaml").data.path


def kernel(package: Path, data: Path, budget: float, faults: str) -> Ran:
    """Runs the real script in the rerun's manner; returns what it did."""
    competition = competition_from_json(read_json(package / "MANIFEST.json")["competition"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "input").mkdir()
        (place / "input" / "package").symlink_to(package.resolve())
        (place / "input" / competition.name).symlink_to(data.resolve())
        environment = {"HOME": folder, "PODIUM_FAULTS": faults, "PODIUM_BUDGET_SECONDS": str(budget)}
        done = run_script(place / "input", place / "working", True, 2.0 * budget + 60.0, environment)
        file = place / "working" / "submission.csv"
        try:
            validate_submission(file, data / competition.sample_submission, competition)
            valid = True
        except PodiumError as error:
            print(error)
            valid = False
        rungs = re.findall(r"^rows per rung: (.*)$", done.log, flags=re.MULTILINE)
        words = re.findall(r"^supervising took .*$", done.log, flags=re.MULTILINE)
        log = done.log + "\n" + (file.read_text() if file.exists() else "")
        return Ran(budget, faults, done.seconds, done.code, valid, (rungs or ["prior"])[-1], (words or [""])[-1], log)


def compared(package: Path, data: Path, ran: Ran) -> float:
    """Returns the largest difference of a probability from what the full ensemble says without any supervisor."""
    artifacts = Artifacts(package)
    manifest = read_json(artifacts.manifest_file)
    competition = competition_from_json(manifest["competition"])
    rows = read_test(data / competition.test, competition, strict=True)
    averages = {
        name: average(
            competition.family,
            [predict_member(artifacts.model(name, k), artifacts, rows, competition) for k in member["folds"]],
        )
        for name, member in manifest["members"].items()
    }
    plain = as_submitted(load_ladder(artifacts.stack, competition).predict(averages, rows)[0], competition)
    header = ",".join([competition.id, *competition.outputs])
    table = pl.read_csv(ran.log[ran.log.rindex(header) :].encode(), schema_overrides={competition.id: pl.String})
    ours = rows.select("id").join(table, left_on="id", right_on=competition.id, how="left", maintain_order="left")
    return float(np.abs(ours.select(competition.outputs).to_numpy() - plain).max())


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, default=Path("."))
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with stage("kernel benchmark", keep_seconds=False):
        main(arguments.run, arguments.times, arguments.output)
