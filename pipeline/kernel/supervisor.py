"""The supervisor: runs the steps in worker processes, keeps submission.csv the best so far, ends before the deadline.

It computes nothing on a GPU. A worker that dies, hangs, runs out of memory or meets a broken file costs the chunk in
flight; the second time its fold model is dropped. In the dress rehearsal each of these ends the run instead.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PodiumError
from pipeline.kernel import journal
from pipeline.kernel.dress_rehearsal import Rehearsal
from pipeline.kernel.processes import Message, Process, cores
from pipeline.kernel.request import Request, message_of
from pipeline.kernel.results import Results
from pipeline.kernel.submission import write_submission
from pipeline.kernel.worker import from_base64, to_base64
from pipeline.planning.cost import WorkerDevice
from pipeline.planning.plan import plan_table, who_may
from pipeline.planning.schedule import Schedule, StepChunk
from pipeline.planning.steps import Step

START_SECONDS = 300.0
"""Seconds that a worker may take until it is ready."""
STARTS = 2
"""A device is lost when this many workers on it have ended before they were ready."""
WRITE_EVERY = 600.0
"""Seconds after which a submission is written although no step has finished."""
WRITE_RESERVE = 3.0
"""How many times the longest write so far is kept free for the last one; a write includes stacking."""


@dataclass
class Busy:
    """A chunk in flight."""

    chunk: StepChunk
    since: float
    loading: float | None = None


class Supervisor:
    """One run over all steps."""

    def __init__(
        self, request: Request, schedule: Schedule, results: Results, devices: list[WorkerDevice], scratch: Path
    ) -> None:
        """`scratch` is a folder for the journal of results and for the token ids of texts."""
        self.request, self.inputs, self.schedule, self.results = request, request.inputs, schedule, results
        self.scratch = scratch
        self.journal_file: Path | None = scratch / "results"
        self.rehearsal = None if self.inputs.rerun else Rehearsal(request)
        self.devices = {device.name: device for device in devices}
        self.alive = set(self.devices)
        schedule.may = who_may(request.manifest["members"], self.alive)
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.processes: dict[str, Process] = {}
        self.starting: dict[str, float] = {}
        self.starts: Counter[str] = Counter()
        self.busy: dict[str, Busy] = {}
        self.printed: list[Step] = []
        self.rungs: Counter[str] = Counter()
        self.written_at, self.write_seconds, self.unwritten = -np.inf, 0.5 + 2.0e-5 * len(request.rows.frame), False
        self.rescued = self.taken = 0
        self.memory: dict[tuple[str, int], float] = {}
        """(member, fold) -> megabytes that the worker held after it had opened this fold model."""
        self.busy_seconds = 0.0
        """Seconds in which this process did not wait."""

    def run(self) -> None:
        """Runs until everything is done or nothing more fits, and writes the last submission.

        Raises: PodiumError in the dress rehearsal, for whatever goes wrong.
        """
        try:
            for name in self.devices:
                self._start(name)
            self.inputs.faults.fall()
            for step, rows, values in journal.read(self.scratch / "results"):  # what a crash has left
                self.schedule.done[step][rows] = True
                self.results.add(step, rows, values)
            self.results.prepare()  # while the workers start
            self._reserve(self.write_seconds)
            while self._turn():
                pass
        except Exception:
            if not self.rehearsal and self.results.values:
                self._write()  # whatever is wrong here, what has been computed is not lost
            raise
        finally:
            for process in self.processes.values():
                process.end()
        self._write()

    def _turn(self) -> bool:
        """Hands out chunks, then waits for one message and handles it; returns False when there is no more to do."""
        began = now = time.monotonic()
        if now >= self.schedule.stop:
            return False
        for name, process in self.processes.items():
            if process.ready and name not in self.busy:
                self._hand_out(name, process, now)
        if not self.busy and not self.starting:
            return False
        limits = [each.since + each.chunk.limit for each in self.busy.values()]
        limits += [since + START_SECONDS for since in self.starting.values()]
        self.busy_seconds += time.monotonic() - began
        try:
            process, message = self.messages.get(timeout=max(min(*limits, self.schedule.stop) - now, 0.0))
        except queue.Empty:
            self._end_hung()
            return True
        began = time.monotonic()
        self.taken += 1
        if self.taken >= self.inputs.faults.asked.get("stumble", np.inf):
            raise RuntimeError("on purpose")
        self._take(process, message)
        wait = max(1.0, 5.0 * self.write_seconds) if self.unwritten else WRITE_EVERY
        if self.results.values and began - self.written_at >= wait:
            self._write()
        self.busy_seconds += time.monotonic() - began
        return True

    def _start(self, name: str) -> None:
        number = list(self.devices).index(name)
        faults = replace(self.inputs.faults, first=self.starts[name] == 0, worker=number)
        process = Process(self.devices[name], self.inputs, faults, self.messages, self.scratch / "tokens")
        threads = max(1, cores() // len(self.devices))
        process.start(number, threads)
        self.processes[name], self.starting[name] = process, time.monotonic()
        self.starts[name] += 1

    def _hand_out(self, name: str, process: Process, now: float) -> None:
        chunk = self.schedule.next_chunk(name, now)
        steps = [each.step for each in self.schedule.planned]
        if steps != self.printed[len(self.printed) - len(steps) :]:
            lines = plan_table(self.schedule.planned, lambda each: int(self.schedule.rows_of(each).sum()))
            print("\n".join(["plan:", *lines]), flush=True)
            self.printed = steps
        if chunk:
            self.busy[name] = Busy(chunk, now)
            process.send({"step": astuple(chunk.step), "rows": to_base64(chunk.rows, "<i8")})

    def _take(self, process: Process, message: dict[str, Any] | None) -> None:
        name = process.device.name
        if self.processes.get(name) is not process:
            return  # ended before, and replaced
        busy = self.busy.get(name)
        if message is None:
            self._lost(name, "its worker ended")
        elif "ready" in message:
            process.ready = True
            self.starting.pop(name)
            self.schedule.add_device(name)
        elif busy and "opened" in message:
            busy.loading, busy.since = message["opened"], time.monotonic()
            self.memory[busy.chunk.step.member, busy.chunk.step.fold] = message["megabytes"]
        elif busy and "failed" in message:
            del self.busy[name]
            self._failed(name, busy.chunk, message["failed"], message["message"])
        elif busy:
            del self.busy[name]
            values = from_base64(message["values"], "<f8").reshape(len(busy.chunk.rows), -1)
            self.rescued += message["rescued"]
            self._finished(name, busy, values, message["seconds"])

    def _finished(self, name: str, busy: Busy, values: np.ndarray, seconds: float) -> None:
        chunk, step = busy.chunk, busy.chunk.step
        self.schedule.finished(name, chunk, busy.loading, seconds)
        self.results.add(step, chunk.rows, values)
        try:
            if self.journal_file and "full" in self.inputs.faults:
                raise OSError("No space left on device")
            if self.journal_file:
                journal.append(self.journal_file, step, chunk.rows, values)
        except OSError as error:
            print(f"problem: results are not kept on disk from here on: {error}", flush=True)
            self.journal_file = None
        if self.schedule.complete(step):
            self.unwritten, same = True, ""
            passes = {
                each.which: each for each in self.schedule.loads if (each.member, each.fold) == (step.member, step.fold)
            }
            if self.rehearsal and all(map(self.schedule.complete, passes.values())):
                # A long pass of which no row is long has no answers.
                answered = {which: each for which, each in passes.items() if each in self.results.values}
                same = self.rehearsal.check(
                    step, {which: self.results.values[each] for which, each in answered.items()}
                )
            took, rows = self.schedule.seconds[step], int(self.schedule.done[step].sum())
            at = time.monotonic() - self.inputs.started
            held = self.memory.get((step.member, step.fold), 0.0)
            print(f"step {step}: {rows} rows in {took:.2f} s on {name}, {held:.0f} MB{same}, at {at:.1f} s", flush=True)

    def _failed(self, name: str, chunk: StepChunk, why: str, message: str) -> None:
        if self.rehearsal:
            raise PodiumError(message if why == "broken" else f"{chunk.step}: {message}")
        dropped = self.schedule.failed(name, chunk, why, message)  # type: ignore[arg-type]
        what = f"{dropped}: dropped" if dropped else f"{chunk.step}: tried again"
        print(f"problem: {what}: {message}", flush=True)

    def _lost(self, name: str, why: str) -> None:
        """Takes back the chunk of a worker that has ended, or must end, and starts a new worker."""
        process, busy = self.processes.pop(name), self.busy.pop(name, None)
        process.end()
        early = self.starting.pop(name, None) is not None
        self.schedule.lose_device(name)
        if self.rehearsal:
            raise PodiumError(f"{busy.chunk.step if busy else name}: {why} on {name}; its last words are above")
        if busy:
            self._failed(name, busy.chunk, "lost", f"{why} on {name}")
        if early and self.starts[name] >= STARTS:
            print(f"problem: {name} is lost: its workers end before they are ready", flush=True)
            self.alive.discard(name)
        else:
            self._start(name)

    def _end_hung(self) -> None:
        now = time.monotonic()
        for name in list(self.processes):
            busy, since = self.busy.get(name), self.starting.get(name)
            if busy and now >= busy.since + busy.chunk.limit:
                self._lost(name, f"no word for {busy.chunk.limit:.0f} s")
            elif since is not None and now >= since + START_SECONDS:
                self._lost(name, f"not ready after {START_SECONDS:.0f} s")

    def _write(self) -> None:
        """Writes the best submission that the results so far allow, and notes how long that took."""
        began, count = time.monotonic(), self.request.rows.test_count
        try:
            means, names = self.results.means()
        except Exception as error:
            if self.rehearsal:
                raise
            print(f"problem: the stackers failed, the members' equal mean is used: {message_of(error)}", flush=True)
            self.results.ladder = None
            means, names = self.results.means()
        self.rungs, ids = Counter(names[:count]), self.request.rows.frame["id"][:count].to_list()
        try:
            file, form = self.inputs.working / "submission.csv", self.request.form
            decided = self.results.decided(means, names)
            write_submission(file, form, ids, means, decided, self.request.competition)
        except OSError as error:
            if self.rehearsal:
                raise
            print(f"problem: submission.csv stays as it was: {error}", flush=True)
        self.schedule.present = np.where(np.isfinite(means), means, self.schedule.present)
        self.written_at, self.unwritten = time.monotonic(), False
        self._reserve(self.written_at - began)

    def summary(self, elapsed: float) -> list[str]:
        """Returns the lines to print at the end."""
        lines = [f"rows per rung: {', '.join(f'{name} {count}' for name, count in self.rungs.items())}"]
        left = [step for step in self.schedule.loads if step not in self.schedule.order]
        if left:
            lines.append(f"not begun: {', '.join(map(str, left))}")
        if self.rescued:
            lines.append(f"{self.rescued} rows were computed again in fp32: their logits were not finite")
        return [*lines, f"supervising took {self.busy_seconds:.2f} of {elapsed:.1f} s"]

    def _reserve(self, seconds: float) -> None:
        self.write_seconds = max(self.write_seconds if self.written_at > 0 else 0.0, seconds)
        self.schedule.stop = self.inputs.deadline - WRITE_RESERVE * self.write_seconds
