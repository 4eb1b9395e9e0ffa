"""What the kernel would do with so many rows, so much time and such a machine, without running it.

python -m pipeline.planning.forecast --package artifacts/package --rows 25000 --budget 32400 --hardware t4x2

The rows' lengths are drawn from the packaged rows. Without timings of a dress rehearsal (`--timings rehearsal.json`)
the costs are nominal ones, and the upper bound is accordingly far away.
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

from pipeline.competitions.task import competition_from_json
from pipeline.data.rows import field_characters
from pipeline.ensemble.ladder import Ladder, load_ladder
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.kernel.budget import margin
from pipeline.kernel.processes import Device
from pipeline.planning.cost import Costs
from pipeline.planning.gain import worth_of
from pipeline.planning.plan import LEFTOVER, Planned
from pipeline.planning.schedule import Chunk, Schedule
from pipeline.planning.simulate import READY, Outcome, simulate
from pipeline.planning.steps import Step, loads_of

SEED = 7
NO_LIMIT = 1.0e9
HARDWARE = {"t4": "Tesla T4", "gpu": "GPU"}


@dataclass(frozen=True)
class Forecast:
    """A kernel that has not run."""

    rows: int
    budget: float
    end: float
    """When it is expected to be over."""
    everything: float
    """How long all steps on all rows are expected to take, without a limit."""
    upper: float
    """The same with every chunk two standard deviations slower."""
    steps: list[dict[str, Any]]
    """Step, rows and seconds, in the expected order."""
    loss: float
    """Expected log loss of the rows whose steps are complete."""

    def as_dict(self) -> dict[str, Any]:
        """For rehearsal.json."""
        named = {"rows": self.rows, "budget_seconds": self.budget, "steps": self.steps, "expected_loss": self.loss}
        seconds = {"end_seconds": self.end, "seconds": self.everything, "upper_seconds": self.upper}
        return named | {key: round(value, 1) for key, value in seconds.items()}


def forecast(
    manifest: dict[str, Any],
    ladder: Ladder,
    known: pl.DataFrame,
    rows: int,
    budget: float,
    devices: list[Device],
    timings: dict[str, Any] | None,
) -> Forecast:
    """What would happen with `rows` rows whose texts are as long as those of `known` (id and text fields)."""
    members, task = manifest["members"], ladder.competition.kind
    draw = np.random.default_rng(SEED).integers(len(known), size=rows)
    characters = {name: each[draw] for name, each in field_characters(known, task.fields).items()}
    loads = loads_of(members, characters, task)
    worth = worth_of(ladder.rungs, members)
    present, sizes = np.tile(np.asarray(ladder.prior), (rows, 1)), np.sum(list(characters.values()), axis=0)
    kinds = {device.name: device.kind for device in devices}
    ends: list[float] = []
    for seconds, deviations in ((NO_LIMIT, 0.0), (NO_LIMIT, 2.0), (budget, 0.0)):
        schedule = Schedule(loads, Costs(members, kinds, timings), worth, seconds - margin(seconds), sizes, present)
        schedule.may = who_may(members, set(kinds))
        # What is expected before anything has run: the schedule's own costs learn from what is drawn here.
        truth = Costs(members, kinds, timings)
        ends.append(simulate(schedule, list(kinds), READY, _as_expected(truth, deviations)))
    counts = {
        name: sum(schedule.complete(Step(name, fold)) for fold in member["folds"]) for name, member in members.items()
    }
    steps = [
        {"step": str(step), "rows": int(schedule.done[step].sum()), "seconds": round(schedule.seconds[step], 1)}
        for step in schedule.order
        if step in schedule.seconds
    ]
    return Forecast(rows, budget, ends[2], ends[0], ends[1], steps, worth.loss(counts))


def _as_expected(truth: Costs, deviations: float) -> Callable[[str, Chunk], Outcome]:
    def outcome(device: str, chunk: Chunk) -> Outcome:
        mean, deviation = truth.expect(chunk.step.member, device, chunk.tokens, chunk.squares)
        loading, spread = truth.loading(chunk.step.member, device)
        return Outcome(loading + deviations * spread, mean + deviations * deviation)

    return outcome


def who_may(members: dict[str, dict[str, Any]], alive: set[str]) -> Callable[[str, str], bool]:
    """Networks run on GPUs as long as one of the devices `alive` is one; everything else runs anywhere."""

    def may(member: str, device: str) -> bool:
        if members[member]["kind"] in ("tabular", "external") or device.startswith("cuda"):
            return True
        return not any(name.startswith("cuda") for name in alive)

    return may


def table(planned: list[Planned], rows_of: Callable[[Planned], int]) -> list[str]:
    """A plan as lines for people."""
    lines = [f"  {'step':<32} {'rows':>8} {'seconds':>9} {'at most':>9} {'gain':>9}"]
    for each in planned:
        if not rows_of(each):
            continue  # all of it is under way
        gain = f"{each.gain:.5f}" if each.gain > LEFTOVER else "-"
        lines.append(f"  {each.step!s:<32} {rows_of(each):>8} {each.seconds:>9.1f} {each.upper:>9.1f} {gain:>9}")
    return lines


def told(found: dict[str, Any]) -> list[str]:
    """A forecast as lines for people."""
    lines = [f"  {'step':<32} {'rows':>8} {'seconds':>9}"]
    lines += [f"  {each['step']:<32} {each['rows']:>8} {each['seconds']:>9.1f}" for each in found["steps"]]
    end = f"over after {found['end_seconds']:.0f} s, with an expected log loss of {found['expected_loss']:.4f}"
    everything = f"everything would take {found['seconds']:.0f} s, at most {found['upper_seconds']:.0f} s"
    return [f"{found['rows']} rows within {found['budget_seconds']:g} s would be:", *lines, f"{end}; {everything}"]


def devices_of(hardware: str) -> list[Device]:
    """`t4x2` -> two T4 and the CPU; `cpu` -> the CPU alone. Raises: PodiumError for other words."""
    found = re.fullmatch(r"(t4|gpu|cpu)(?:x([1-9]\d?))?", hardware)
    if not found:
        raise PodiumError(f"--hardware: expected t4, gpu or cpu, or several like t4x2, found {hardware}")
    kind, count = found[1], int(found[2] or 1)
    if kind == "cpu":
        return [Device(f"cpu:{number}", "cpu") for number in range(count)]
    return [*(Device(f"cuda:{number}", HARDWARE[kind]) for number in range(count)), Device("cpu", "cpu")]


def read_rehearsal(file: Path) -> dict[str, Any]:
    """The timings in a rehearsal.json. Raises: PodiumError where there are none."""
    try:
        return dict(read_json(file)["timings"])
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise PodiumError(f"{file}: expected a rehearsal.json with timings, found none ({error})") from None


def main() -> None:
    """Prints the forecast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Path("artifacts/package"))
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--budget", type=float, required=True, help="seconds")
    parser.add_argument("--hardware", default="t4x2", help="t4x2, t4, gpu, cpu, ...")
    parser.add_argument("--timings", type=Path, help="rehearsal.json of a dress rehearsal on this hardware")
    asked = parser.parse_args()
    if asked.rows < 1 or asked.budget <= 0:
        raise PodiumError("--rows and --budget: expected positive numbers")
    if not (asked.package / "MANIFEST.json").is_file():
        raise PodiumError(f"{asked.package}: expected a package (a folder with MANIFEST.json), found none; `dvc repro`")
    manifest = read_json(asked.package / "MANIFEST.json")
    competition = competition_from_json(manifest["competition"])
    ladder, known = load_ladder(asked.package / "stack", competition), pl.read_parquet(asked.package / "parity.parquet")
    timings = read_rehearsal(asked.timings) if asked.timings else None
    devices = devices_of(asked.hardware)
    print("\n".join(told(forecast(manifest, ladder, known, asked.rows, asked.budget, devices, timings).as_dict())))


if __name__ == "__main__":
    try:
        main()
    except PodiumError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
