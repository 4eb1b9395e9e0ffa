"""What only the dress rehearsal does: parity of every fold model with training, and a forecast of the hidden run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.errors import PodiumError
from pipeline.inference.parity import parity_differences
from pipeline.inference.passes import combined
from pipeline.kernel.request import Request
from pipeline.kinds import kind_of
from pipeline.planning.cost import WorkerDevice
from pipeline.planning.forecast import forecast_kernel
from pipeline.planning.schedule import Schedule
from pipeline.planning.steps import Load, Step


class Rehearsal:
    """Collects what the fold models say about the packaged rows of their own folds."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.parity: dict[str, list[np.ndarray]] = {}

    def check(self, step: Step, values: Mapping[str, np.ndarray]) -> str:
        """Compares a fold model whose passes are all complete with training; returns the words for the log.

        values: pass -> (rows, classes) probabilities.

        Raises: PodiumError where parity is lost, or a test row of a member that must know it has no number.
        """
        rows, member = self.request.rows, self.request.manifest["members"][step.member]
        predicted = combined(values)
        known = rows.test_count + np.flatnonzero(rows.parity["fold"].to_numpy() == step.fold)
        differences = parity_differences(
            predicted[known], step.member, step.fold, rows.parity, member["precision"], rows.competition
        )
        lacking = int((~np.isfinite(predicted[: rows.test_count]).all(axis=1)).sum())
        if lacking and kind_of(member["kind"]).knows_every_row:
            model = Step(step.member, step.fold)
            raise PodiumError(f"{model}: expected finite numbers, found {lacking} rows without")
        self.parity.setdefault(step.member, []).append(differences)
        return f", parity {differences.max(initial=0.0):.1e}"

    def report(
        self, schedule: Schedule, rungs: Counter[str], devices: list[WorkerDevice], elapsed: float
    ) -> dict[str, Any]:
        """Returns rehearsal.json: the kernel's part of metrics/rehearsal.json, and the timings for `publish`."""
        request, rows, budget = self.request, self.request.rows, self.request.inputs.budget
        members = request.manifest["members"]
        differences = {name: np.concatenate(self.parity[name]) for name in members if name in self.parity}
        exact = [each.max() for name, each in differences.items() if members[name]["precision"] == "fp32"]
        timings = schedule.costs.fitted()
        hidden = None
        if (hidden_rows := request.competition.hidden_rows) and request.ladder:
            known = rows.frame[rows.test_count :] if len(rows.parity) else rows.frame
            found = forecast_kernel(request.manifest, request.ladder, known, hidden_rows, budget, devices, timings)
            print("\n".join(found.lines()), flush=True)
            hidden = asdict(found)
        return {
            "budget_seconds": budget,
            "elapsed_seconds": round(elapsed, 3),
            "rungs": [rung["name"] for rung in request.manifest["rungs"]],
            "rows": rows.test_count,
            "rows_per_rung": dict(rungs),
            "parity": {
                name: {"max": float(each.max()), "mean": float(each.mean())} for name, each in differences.items()
            },
            "parity_max_abs_diff": float(max(exact)) if exact else None,
            "plan": [_entry(step, schedule) for step in schedule.order],
            "timings": timings,
            "hidden": hidden,
        }


def rehearsed_rows(loads: dict[Step, Load], request: Request) -> dict[Step, Load]:
    """Returns the loads, each limited to the test rows and the packaged rows of the step's own fold."""
    rows = request.rows
    folds = rows.parity["fold"].to_numpy() if len(rows.parity) else np.empty(0)
    every = np.ones(rows.test_count, dtype=bool)
    return {
        step: Load(load.tokens, load.squares, load.eligible & np.concatenate([every, folds == step.fold]))
        for step, load in loads.items()
    }


def _entry(step: Step, schedule: Schedule) -> dict[str, Any]:
    done = int(schedule.done[step].sum())
    status = "done" if schedule.complete(step) else "part" if done else "no time"
    entry: dict[str, Any] = {"member": step.member, "fold": step.fold, "pass": step.which, "status": status}
    return entry | {"rows": done, "seconds": round(schedule.seconds[step], 3) if step in schedule.seconds else None}
