"""The kernel's work, one fold model at a time; after each, the best submission so far stands in the working folder.

The order is simple here: the first fold model of every member, then the second, and so on, until the time is over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import polars as pl

from pipeline.ensemble.ladder import PRIOR, Ladder
from pipeline.ensemble.logits import geometric_mean
from pipeline.errors import PodiumError
from pipeline.files import write_json
from pipeline.inference.job import Job, one_line, refuse_broken
from pipeline.inference.parity import parity_differences, parity_part
from pipeline.inference.predict import predict_member
from pipeline.inference.submission import write_submission

LAST_RESORT = "mean"
"""The rung below all stackers: the equal mean of what has run, where the members of no fitted rung are complete."""


@dataclass(frozen=True)
class Step:
    """One fold model to run on all rows."""

    member: str
    fold: int


def plan_steps(members: dict[str, dict[str, Any]]) -> list[Step]:
    """The first fold model of every member, then the second of each, and so on."""
    columns = [[Step(name, fold) for fold in member["folds"]] for name, member in members.items()]
    return [step for turn in zip_longest(*columns) for step in turn if step]


def run_steps(
    job: Job, started: float, deadline: float, budget: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Runs the steps that begin and, as far as the longest one tells, end before `deadline`.

    `clock` gives seconds; `started` (of the process) and `deadline` are on it. In the dress rehearsal it writes
    rehearsal.json: what metrics/rehearsal.json says, but for what only the outside can know.

    Raises: PodiumError in the dress rehearsal; in a rerun a step that fails is named and dropped.
    """
    steps = plan_steps(job.manifest["members"])
    print(f"{len(job.rows)} rows, {len(steps)} steps", flush=True)
    parts: dict[str, list[np.ndarray]] = {}
    parity: dict[str, list[np.ndarray]] = {}
    plan: list[dict[str, Any]] = []
    rungs = Counter({PRIOR: len(job.rows)})
    longest, updated, cost = 0.0, -np.inf, 0.0
    for number, step in enumerate(steps, start=1):
        began = clock()
        label = f"step {number}/{len(steps)}: {step.member} fold {step.fold}"
        plan.append({"member": step.member, "fold": step.fold, "status": "done", "seconds": None})
        if began + longest > deadline:
            plan[-1]["status"] = "no time"
            print(f"{label}: no time left, {began - started:.1f} of {budget:.0f} s are gone", flush=True)
            continue
        try:
            compared, predicted = _take(job, step)
        except Exception as error:
            if not job.rerun:
                raise
            plan[-1]["status"] = "dropped"
            print(f"{label}: dropped: {one_line(error)}", flush=True)
            continue
        parts.setdefault(step.member, []).append(predicted)
        parity.setdefault(step.member, []).append(compared)
        now = clock()
        seconds = now - began
        longest, plan[-1]["seconds"] = max(longest, seconds), round(seconds, 3)
        # Fast steps would spend most of their time on updates: wait a second, or a few times what the last one took.
        if now - updated >= max(1.0, 5 * cost):
            rungs = _update(job, parts)
            updated = clock()
            cost = updated - now
        same = "" if job.rerun else f", parity {compared.max(initial=0.0):.1e}"
        at = f"rung {_reached(job, parts)}, {clock() - started:.1f} of {budget:.0f} s"
        print(f"{label}: {len(job.rows)} rows in {seconds:.2f} s{same}, {at}", flush=True)
    if parts:
        rungs = _update(job, parts)
    print(f"rows per rung: {', '.join(f'{name} {count}' for name, count in rungs.items())}", flush=True)
    if not job.rerun:
        write_json(job.working / "rehearsal.json", _metrics(job, budget, clock() - started, rungs, parity, plan))


def _take(job: Job, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """The step's parity differences (none in a rerun) and its (rows, classes) predictions.

    Raises: PodiumError where files are broken, parity is lost, or a prediction is not a number. In a rerun rows may
    be without one; an external member's always may.
    """
    name, member = f"members/{step.member}/fold{step.fold}", job.manifest["members"][step.member]
    refuse_broken(name, job.broken)
    # Parity rows and test rows in one call: a network is loaded once for both.
    known = job.rows.head(0) if job.rerun else parity_part(job.parity, step.fold, job.competition)
    asked = pl.concat([known, job.rows.select(known.columns)])
    compared, predicted = np.split(predict_member(job.package / name, asked, job.competition), [len(known)])
    if not job.rerun:
        compared = parity_differences(
            compared, step.member, step.fold, job.parity, member["precision"], job.competition
        )
    lacking = int((~np.isfinite(predicted).all(axis=1)).sum())
    if lacking and not job.rerun and member["kind"] != "external":
        raise PodiumError(
            f"{step.member} fold {step.fold}: expected finite probabilities, found {lacking} rows without"
        )
    return compared, predicted


def _update(job: Job, parts: dict[str, list[np.ndarray]]) -> Counter[str]:
    """Writes the submission that the finished steps allow; returns how many rows each rung answered."""
    available = {name: average(each) for name, each in parts.items()}
    try:
        probabilities, names = _stacked(job.ladder, available, job.rows)
    except Exception as error:
        if not job.rerun:
            raise
        print(f"problem: the stackers failed, the members' equal mean is used: {one_line(error)}", flush=True)
        probabilities, names = _stacked(None, available, job.rows)
    ids = job.rows["id"].to_list()
    write_submission(job.working / "submission.csv", job.form, ids, probabilities, job.competition)
    return Counter(names)


def _stacked(
    ladder: Ladder | None, available: dict[str, np.ndarray], rows: pl.DataFrame
) -> tuple[np.ndarray, list[str]]:
    """The ladder's (rows, classes) answer and rung names; where it has the prior only, the mean of what has run."""
    mean = average(list(available.values()))
    if ladder is None:
        return mean, [LAST_RESORT] * len(rows)
    probabilities, names = ladder.predict(available, rows)
    lost = np.isfinite(mean).all(axis=1) & (np.array(names) == PRIOR)
    return np.where(lost[:, None], mean, probabilities), list(np.where(lost, LAST_RESORT, names))


def average(parts: list[np.ndarray]) -> np.ndarray:
    """The average of (rows, classes) predictions; a row to which some have no answer is left to the others."""
    finite = np.stack([np.isfinite(part).all(axis=1) for part in parts], axis=1)
    result = np.full_like(parts[0], np.nan)
    for pattern in np.unique(finite, axis=0):
        rows = (finite == pattern).all(axis=1)
        if pattern.any():
            result[rows] = geometric_mean([part[rows] for part, has in zip(parts, pattern, strict=True) if has])
    return result


def _reached(job: Job, parts: dict[str, list[np.ndarray]]) -> str:
    """The highest rung whose members have all run."""
    fitted = (
        [rung.name for rung in job.ladder.rungs if rung.members and set(rung.members) <= set(parts)]
        if job.ladder
        else []
    )
    return fitted[-1] if fitted else LAST_RESORT


def _metrics(
    job: Job,
    budget: float,
    elapsed: float,
    rungs: Counter[str],
    parity: dict[str, list[np.ndarray]],
    plan: list[dict[str, Any]],
) -> dict[str, Any]:
    """What the kernel itself can say for metrics/rehearsal.json."""
    differences = {name: np.concatenate(each) for name, each in parity.items()}
    exact = [each.max() for name, each in differences.items() if job.manifest["members"][name]["precision"] == "fp32"]
    return {
        "budget_seconds": budget,
        "elapsed_seconds": round(elapsed, 3),
        "rungs": [rung["name"] for rung in job.manifest["rungs"]],
        "rows": len(job.rows),
        "rows_per_rung": dict(rungs),
        "parity": {name: {"max": float(each.max()), "mean": float(each.mean())} for name, each in differences.items()},
        "parity_max_abs_diff": float(max(exact)) if exact else None,
        "plan": plan,
    }
