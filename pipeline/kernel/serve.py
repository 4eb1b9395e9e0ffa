"""The kernel's run as a whole: everything opened, the schedule made, the supervisor let loose, the report written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.rows import field_characters
from pipeline.ensemble.ladder import PRIOR, Rung
from pipeline.files import read_json, write_json
from pipeline.kernel.dress_rehearsal import rehearsed_rows, report
from pipeline.kernel.inputs import Call
from pipeline.kernel.processes import find_devices
from pipeline.kernel.request import open_job
from pipeline.kernel.results import Answers
from pipeline.kernel.supervisor import Supervisor
from pipeline.planning.cost import Costs
from pipeline.planning.gain import worth_of
from pipeline.planning.schedule import Schedule
from pipeline.planning.steps import loads_of

TIMINGS = "timings.json"


def serve(call: Call, scratch: Path) -> None:
    """The whole run; `scratch` is a folder for results and for the token ids of texts.

    Raises: PodiumError in the dress rehearsal, for whatever goes wrong.
    """
    job = open_job(call)
    members, rows = job.manifest["members"], job.rows
    devices = find_devices(call.faults)
    sizes = field_characters(rows.frame, job.competition.kind.fields)
    loads = loads_of(members, sizes, job.competition.kind)
    if not call.rerun:
        loads = rehearsed_rows(loads, job)
    kinds = {device.name: device.kind for device in devices}
    rungs = job.ladder.rungs if job.ladder else (Rung(PRIOR, (), None, loss=0.0),)
    prior = np.array([[job.manifest["prior"][name] for name in job.competition.classes]])
    schedule = Schedule(
        loads,
        Costs(members, kinds, read_timings(call.package)),
        worth_of(rungs, members),
        call.deadline,
        np.sum(list(sizes.values()), axis=0),
        prior.repeat(len(rows.frame), axis=0),
        everything=not call.rerun,
        patience=float(np.clip(0.1 * call.budget, 5.0, 60.0)),
    )
    answers = Answers(rows.frame, job.competition, members, job.ladder)
    found = ", ".join(f"{device.name} ({device.model})" for device in devices)
    print(f"{rows.tested} rows, {len(loads)} steps, {call.budget:g} s; devices: {found}", flush=True)
    supervisor = Supervisor(job, schedule, answers, devices, scratch)
    supervisor.run()
    elapsed = time.monotonic() - call.started
    for line in supervisor.closing_words(elapsed):
        print(line, flush=True)
    if supervisor.rehearsal:
        told = report(job, schedule, supervisor.rehearsal, supervisor.rungs, devices, elapsed)
        write_json(call.working / "rehearsal.json", told)


def read_timings(package: Path) -> dict[str, Any] | None:
    """What an earlier dress rehearsal on Kaggle's machine has measured; `publish` puts it beside the package."""
    try:
        return {
            member: {kind: {key: float(found[key]) for key in ("load", "a", "b", "c")} for kind, found in kinds.items()}
            for member, kinds in read_json(package / TIMINGS).items()
        }
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return None
