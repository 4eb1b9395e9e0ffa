"""What only the dress rehearsal does: parity with training for every fold model, and what the hidden run will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import PodiumError
from pipeline.inference.parity import parity_differences
from pipeline.inference.passes import combined
from pipeline.kernel.processes import Device
from pipeline.kernel.request import Job
from pipeline.planning.forecast import forecast, told
from pipeline.planning.schedule import Schedule
from pipeline.planning.steps import Load, Step


class Rehearsal:
    """Collects what the fold models say about the packaged rows of their own folds."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.parity: dict[str, list[np.ndarray]] = {}

    def check(self, step: Step, values: Mapping[str, np.ndarray]) -> str:
        """Compares a fold model of which all passes are complete with training; `values` holds them by pass.

        Raises: PodiumError where parity is lost, or a test row of a member that must know it has no number.
        """
        rows, member = self.job.rows, self.job.manifest["members"][step.member]
        predicted = combined(values)
        known = rows.tested + np.flatnonzero(rows.parity["fold"].to_numpy() == step.fold)
        differences = parity_differences(
            predicted[known], step.member, step.fold, rows.parity, member["precision"], rows.competition
        )
        lacking = int((~np.isfinite(predicted[: rows.tested]).all(axis=1)).sum())
        if lacking and member["kind"] != "external":
            raise PodiumError(
                f"{step.member} fold {step.fold}: expected finite probabilities, found {lacking} rows without"
            )
        self.parity.setdefault(step.member, []).append(differences)
        return f", parity {differences.max(initial=0.0):.1e}"


def rehearsed_rows(loads: dict[Step, Load], job: Job) -> dict[Step, Load]:
    """The loads with each step's rows limited to the test rows and the packaged rows of its own fold."""
    folds = job.rows.parity["fold"].to_numpy() if len(job.rows.parity) else np.empty(0)
    every = np.ones(job.rows.tested, dtype=bool)
    return {
        step: Load(load.tokens, load.squares, load.eligible & np.concatenate([every, folds == step.fold]))
        for step, load in loads.items()
    }


def report(
    job: Job,
    schedule: Schedule,
    rehearsal: Rehearsal,
    rungs: Counter[str],
    devices: list[Device],
    elapsed: float,
) -> dict[str, Any]:
    """rehearsal.json: what the kernel itself can say for metrics/rehearsal.json, and the timings for `publish`."""
    members, budget = job.manifest["members"], job.call.budget
    differences = {name: np.concatenate(rehearsal.parity[name]) for name in members if name in rehearsal.parity}
    exact = [each.max() for name, each in differences.items() if members[name]["precision"] == "fp32"]
    timings = schedule.costs.fitted()
    hidden = None
    if job.competition.hidden_rows and job.ladder:
        known = job.rows.frame[job.rows.tested :] if len(job.rows.parity) else job.rows.frame
        hidden = forecast(
            job.manifest, job.ladder, known, job.competition.hidden_rows, budget, devices, timings
        ).as_dict()
        for line in told(hidden):
            print(line, flush=True)
    return {
        "budget_seconds": budget,
        "elapsed_seconds": round(elapsed, 3),
        "rungs": [rung["name"] for rung in job.manifest["rungs"]],
        "rows": job.rows.tested,
        "rows_per_rung": dict(rungs),
        "parity": {name: {"max": float(each.max()), "mean": float(each.mean())} for name, each in differences.items()},
        "parity_max_abs_diff": float(max(exact)) if exact else None,
        "plan": [_entry(step, schedule) for step in schedule.order],
        "timings": timings,
        "hidden": hidden,
    }


def _entry(step: Step, schedule: Schedule) -> dict[str, Any]:
    done = int(schedule.done[step].sum())
    status = "done" if schedule.complete(step) else "part" if done else "no time"
    entry: dict[str, Any] = {"member": step.member, "fold": step.fold, "pass": step.which, "status": status}
    return entry | {"rows": done, "seconds": round(schedule.seconds[step], 3) if step in schedule.seconds else None}
