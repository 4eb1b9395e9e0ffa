"""What the kernel would do with that many rows, that much time and that machine, without running it.

python -m pipeline.planning.forecast --package artifacts/package --rows 25000 [--budget 32400] [--hardware t4x2]

Budget and machine are by default the package's. The rows' lengths are drawn from the packaged rows. Without timings of
a dress rehearsal (`--timings rehearsal.json`) the costs are nominal ones, and the upper bound is accordingly far away.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import competition_from_json
from pipeline.data.rows import field_characters
from pipeline.ensemble.ladder import Ladder, load_ladder
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.machines import CARDS
from pipeline.planning.budget import margin
from pipeline.planning.cost import Costs, WorkerDevice
from pipeline.planning.gain import expected_gain
from pipeline.planning.plan import who_may
from pipeline.planning.schedule import Schedule, StepChunk
from pipeline.planning.simulate import READY, Outcome, simulate
from pipeline.planning.steps import Step, loads_of

DRAW_SEED = 7
NO_LIMIT = 1.0e9


@dataclass(frozen=True)
class Forecast:
    """How a run of the kernel is expected to go; rehearsal.json keeps it as `hidden`."""

    rows: int
    budget_seconds: float
    steps: list[dict[str, Any]]
    """Step, rows and seconds, in the expected order."""
    expected_loss: float
    """Loss that is expected of the rows whose steps are complete."""
    end_seconds: float
    """When the run is expected to end."""
    seconds: float
    """What all steps on all rows are expected to take, without a limit."""
    upper_seconds: float
    """What they take if every chunk is slower by two standard deviations."""

    def lines(self) -> list[str]:
        """Returns the lines that show it in the log."""
        lines = [f"{self.rows} rows within {self.budget_seconds:g} s would be:"]
        lines.append(f"  {'step':<32} {'rows':>8} {'seconds':>9}")
        lines += [f"  {each['step']:<32} {each['rows']:>8} {each['seconds']:>9.1f}" for each in self.steps]
        end = f"over after {self.end_seconds:.0f} s, with an expected loss of {self.expected_loss:.4f}"
        return [*lines, f"{end}; everything would take {self.seconds:.0f} s, at most {self.upper_seconds:.0f} s"]


def forecast_kernel(
    manifest: dict[str, Any],
    ladder: Ladder,
    known: pl.DataFrame,
    rows: int,
    budget: float,
    devices: list[WorkerDevice],
    timings: dict[str, Any] | None,
) -> Forecast:
    """Returns the forecast for `rows` rows whose texts are as long as those of `known` (id and text fields)."""
    members, task = manifest["members"], ladder.competition.kind
    draw = np.random.default_rng(DRAW_SEED).integers(len(known), size=rows)
    characters = {name: each[draw] for name, each in field_characters(known, task.fields).items()}
    loads = loads_of(members, characters, task)
    expected = expected_gain(ladder.rungs, members, ladder.competition.family)
    present, sizes = np.tile(np.asarray(ladder.prior), (rows, 1)), np.sum(list(characters.values()), axis=0)
    hardware = {device.name: device.hardware for device in devices}
    may = who_may(members, set(hardware))
    ends: list[float] = []
    for seconds, deviations in ((NO_LIMIT, 0.0), (NO_LIMIT, 2.0), (budget, 0.0)):
        costs, stop = Costs(members, hardware, timings), seconds - margin(seconds)
        schedule = Schedule(loads, costs, expected, stop, sizes, present, may)
        # What is expected before anything has run: the schedule's own costs learn from what is drawn here.
        truth = Costs(members, hardware, timings)
        ends.append(round(simulate(schedule, list(hardware), READY, _as_expected(truth, deviations)), 1))
    counts = {
        name: sum(schedule.complete(Step(name, fold)) for fold in member["folds"]) for name, member in members.items()
    }
    steps = [
        {"step": str(step), "rows": int(schedule.done[step].sum()), "seconds": round(schedule.seconds[step], 1)}
        for step in schedule.order
        if step in schedule.seconds
    ]
    return Forecast(rows, budget, steps, expected.loss(counts), ends[2], ends[0], ends[1])


def _as_expected(truth: Costs, deviations: float) -> Callable[[str, StepChunk], Outcome]:
    def outcome(device: str, chunk: StepChunk) -> Outcome:
        mean, deviation = truth.expect(chunk.step.member, device, chunk.tokens, chunk.squares)
        loading, spread = truth.loading(chunk.step.member, device)
        return Outcome(loading + deviations * spread, mean + deviations * deviation)

    return outcome


def devices_of(words: str) -> list[WorkerDevice]:
    """Returns two T4 and the CPU for `t4x2`, the CPU alone for `cpu`. Raises: PodiumError for other words."""
    found = re.fullmatch(rf"({'|'.join(CARDS)})(?:x([1-9]\d?))?", words)
    if not found:
        raise PodiumError(f"--hardware: expected {', '.join(CARDS)}, or several like t4x2, found {words}")
    hardware, count = found[1], int(found[2] or 1)
    if hardware == "cpu":
        return [WorkerDevice(f"cpu:{number}", "cpu") for number in range(count)]
    name = CARDS[hardware].says or "GPU"
    return [*(WorkerDevice(f"cuda:{number}", name) for number in range(count)), WorkerDevice("cpu", "cpu")]


def read_rehearsal(file: Path) -> dict[str, Any]:
    """Returns the timings in a rehearsal.json. Raises: PodiumError where there are none."""
    try:
        return dict(read_json(file)["timings"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise PodiumError(f"{file}: expected a rehearsal.json with timings, found none ({error})") from None


def main() -> None:
    """Prints the forecast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Artifacts().package)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--budget", type=float, help="seconds")
    parser.add_argument("--hardware", help="t4x2, l4x4, gpu, cpu, ...")
    parser.add_argument("--timings", type=Path, help="rehearsal.json of a dress rehearsal on this hardware")
    asked = parser.parse_args()
    if asked.rows < 1 or (asked.budget is not None and asked.budget <= 0):
        raise PodiumError("--rows and --budget: expected positive numbers")
    package = Artifacts(asked.package)
    if not package.manifest_file.is_file():
        raise PodiumError(f"{asked.package}: expected a package (a folder with MANIFEST.json), found none; `dvc repro`")
    manifest = read_json(package.manifest_file)
    ladder = load_ladder(package.stack, competition_from_json(manifest["competition"]))
    known = pl.read_parquet(package.parity_file)
    timings = read_rehearsal(asked.timings) if asked.timings else None
    devices, budget = (
        devices_of(asked.hardware or manifest.get("machine", "t4x2")),
        asked.budget or manifest["budget_seconds"],
    )
    print("\n".join(forecast_kernel(manifest, ladder, known, asked.rows, budget, devices, timings).lines()))


if __name__ == "__main__":
    try:
        main()
    except PodiumError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
