"""One run of the kernel as a whole: opens everything, makes the schedule, runs the supervisor, writes the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.rows import field_characters
from pipeline.ensemble.ladder import PRIOR, Rung
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.kernel.dress_rehearsal import rehearsed_rows
from pipeline.kernel.inputs import KernelInputs
from pipeline.kernel.processes import check_machine, find_devices
from pipeline.kernel.request import open_request
from pipeline.kernel.results import Results
from pipeline.kernel.supervisor import Supervisor
from pipeline.planning.cost import Costs
from pipeline.planning.gain import expected_gain
from pipeline.planning.schedule import Schedule
from pipeline.planning.steps import loads_of

MOST = {"load": 3600.0, "a": 3600.0, "b": 1.0, "c": 1.0}
"""Seconds of loading, per chunk, per token and per squared length: above these a timing is a mistake."""


def serve(inputs: KernelInputs, scratch: Path) -> dict[str, int]:
    """Predicts and writes until the deadline; `scratch` is a folder for results and for the token ids of texts.

    Returns how many rows each rung has answered.

    Raises: PodiumError in the dress rehearsal, for whatever goes wrong.
    """
    request = open_request(inputs)
    members, rows = request.manifest["members"], request.rows
    devices = find_devices(inputs.faults)
    if inputs.on_kaggle:
        try:
            check_machine(request.manifest["machine"], devices)
        except PodiumError as error:
            if not inputs.rerun:
                raise
            print(f"problem: {error}", flush=True)
    sizes = field_characters(rows.frame, request.competition.kind.fields)
    loads = loads_of(members, sizes, request.competition.kind)
    if not inputs.rerun:
        loads = rehearsed_rows(loads, request)
    hardware = {device.name: device.hardware for device in devices}
    rungs = request.ladder.rungs if request.ladder else (Rung(PRIOR, (), None, loss=0.0),)
    prior = np.array([[request.manifest["prior"][name] for name in request.competition.outputs]])
    schedule = Schedule(
        loads,
        Costs(members, hardware, read_timings(inputs.package)),
        expected_gain(rungs, members, request.competition.family),
        inputs.deadline,
        np.sum(list(sizes.values()), axis=0),
        prior.repeat(len(rows.frame), axis=0),
        everything=not inputs.rerun,
        planless="plan" in inputs.faults,
        patience=float(np.clip(0.1 * inputs.budget, 5.0, 60.0)),
    )
    results = Results(rows.frame, request.competition, members, request.ladder)
    names = ", ".join(f"{device.name} ({device.model})" for device in devices)
    print(f"{rows.test_count} rows, {len(loads)} steps, {inputs.budget:g} s; devices: {names}", flush=True)
    supervisor = Supervisor(request, schedule, results, devices, scratch)
    supervisor.run()
    elapsed = time.monotonic() - inputs.started
    for line in supervisor.summary(elapsed):
        print(line, flush=True)
    if rehearsal := supervisor.rehearsal:
        write_json(inputs.working / "rehearsal.json", rehearsal.report(schedule, supervisor.rungs, devices, elapsed))
    return dict(supervisor.rungs)


def read_timings(package: Path) -> dict[str, Any] | None:
    """Returns what an earlier dress rehearsal on Kaggle has measured, where `publish` has added that to the package.

    Figures of which one is none that a machine could take are left out: their member would never be asked anything.
    """
    timings: dict[str, Any] = {}
    try:
        for member, found in read_json(package / "timings.json").items():
            timings[member] = {}
            for hardware, each in found.items():
                figures = {key: float(each[key]) for key in MOST}
                if all(0.0 <= figures[key] <= most for key, most in MOST.items()):
                    timings[member][hardware] = figures
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return None
    return timings
