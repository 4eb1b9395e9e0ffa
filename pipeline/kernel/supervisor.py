"""Runs the kernel's work in worker processes, keeps submission.csv the best so far, and is done before the deadline.

It computes nothing on a GPU. A worker that dies, hangs, runs out of memory or meets a broken file costs the chunk in
flight; the second time its fold model is dropped. In the dress rehearsal each of these ends the run instead.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PodiumError
from pipeline.kernel import journal
from pipeline.kernel.dress_rehearsal import Rehearsal
from pipeline.kernel.processes import Device, Message, Process, cores
from pipeline.kernel.request import Job, one_line
from pipeline.kernel.results import Answers
from pipeline.kernel.submission import write_submission
from pipeline.kernel.worker import decoded, encoded
from pipeline.planning.forecast import table, who_may
from pipeline.planning.schedule import Chunk, Schedule
from pipeline.planning.steps import Step

STARTING = 300.0
"""Seconds that a worker may take until it is ready."""
STARTS = 2
"""A device on which so many workers ended before they were ready is lost."""
OFTEN = 600.0
"""Seconds after which the submission is improved although no step has finished."""
SPARE = 3.0
"""The last improvement may take that many times as long as the longest so far."""


@dataclass
class Busy:
    """A chunk in flight."""

    chunk: Chunk
    since: float
    loading: float | None = None


class Supervisor:
    """One run over all steps."""

    def __init__(self, job: Job, schedule: Schedule, answers: Answers, devices: list[Device], scratch: Path) -> None:
        """`scratch` is a folder for what may be lost: results as they come, and the token ids of texts."""
        self.job, self.schedule, self.answers, self.scratch = job, schedule, answers, scratch
        self.kept: Path | None = scratch / "results"
        self.call = job.call
        self.rehearsal = None if job.call.rerun else Rehearsal(job)
        self.devices = {device.name: device for device in devices}
        self.alive = set(self.devices)
        schedule.may = who_may(job.manifest["members"], self.alive)
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.processes: dict[str, Process] = {}
        self.starting: dict[str, float] = {}
        self.starts: Counter[str] = Counter()
        self.busy: dict[str, Busy] = {}
        self.printed: list[Step] = []
        self.rungs: Counter[str] = Counter()
        self.improved, self.cost, self.pending = -np.inf, 0.5 + 2.0e-5 * len(job.rows.frame), False
        self.rescued = 0
        self.memory: dict[tuple[str, int], float] = {}
        """What the worker held after it had opened a fold model, in megabytes."""
        self.working = 0.0
        """Seconds in which this process did something else than wait."""

    def run(self) -> None:
        """Returns when everything is done, or nothing more fits, with the last improvement written.

        Raises: PodiumError in the dress rehearsal, for whatever goes wrong.
        """
        try:
            for name in self.devices:
                self._start(name)
            for step, rows, values in journal.read(self.scratch / "results"):  # what an accident has left
                self.schedule.done[step][rows] = True
                self.answers.add(step, rows, values)
            self.answers.prepare()  # while the workers start
            self._keep_time(self.cost)
            while self._turn():
                pass
        finally:
            for process in self.processes.values():
                process.end()
        self._improve()

    def _turn(self) -> bool:
        """Hands out work, waits for one message and takes it; False when it is over."""
        began = now = time.monotonic()
        if now >= self.schedule.stop:
            return False
        for name, process in self.processes.items():
            if process.ready and name not in self.busy:
                self._hand_out(name, process, now)
        if not self.busy and not self.starting:
            return False
        limits = [each.since + each.chunk.limit for each in self.busy.values()]
        limits += [since + STARTING for since in self.starting.values()]
        self.working += time.monotonic() - began
        try:
            process, message = self.messages.get(timeout=max(min(*limits, self.schedule.stop) - now, 0.0))
        except queue.Empty:
            self._end_hung()
            return True
        began = time.monotonic()
        self._take(process, message)
        wait = max(1.0, 5.0 * self.cost) if self.pending else OFTEN
        if self.answers.values and began - self.improved >= wait:
            self._improve()
        self.working += time.monotonic() - began
        return True

    def _start(self, name: str) -> None:
        faults = replace(self.call.faults, first=self.starts[name] == 0)
        process = Process(self.devices[name], self.call, faults, self.messages, self.scratch / "tokens")
        threads = max(1, cores() // len(self.devices))
        process.start(list(self.devices).index(name), threads)
        self.processes[name], self.starting[name] = process, time.monotonic()
        self.starts[name] += 1

    def _hand_out(self, name: str, process: Process, now: float) -> None:
        chunk = self.schedule.next_chunk(name, now)
        steps = [each.step for each in self.schedule.planned]
        if steps != self.printed[len(self.printed) - len(steps) :]:
            lines = table(self.schedule.planned, lambda each: int(self.schedule.rows_of(each).sum()))
            print("\n".join(["plan:", *lines]), flush=True)
            self.printed = steps
        if chunk:
            self.busy[name] = Busy(chunk, now)
            step = chunk.step
            task = {"member": step.member, "fold": step.fold, "which": step.which}
            process.send(task | {"rows": encoded(chunk.rows, "<i8")})

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
            values = decoded(message["values"], "<f8").reshape(len(busy.chunk.rows), -1)
            self.rescued += message["rescued"]
            self._finished(name, busy, values, message["seconds"])

    def _finished(self, name: str, busy: Busy, values: np.ndarray, seconds: float) -> None:
        chunk, step = busy.chunk, busy.chunk.step
        self.schedule.finished(name, chunk, busy.loading, seconds)
        self.answers.add(step, chunk.rows, values)
        try:
            if self.kept and "full" in self.call.faults:
                raise OSError("No space left on device")
            if self.kept:
                journal.append(self.kept, step, chunk.rows, values)
        except OSError as error:
            print(f"problem: results are not kept on disk from here on: {error}", flush=True)
            self.kept = None
        if self.schedule.complete(step):
            self.pending, same = True, ""
            passes = {
                each.which: each for each in self.schedule.loads if (each.member, each.fold) == (step.member, step.fold)
            }
            if self.rehearsal and all(map(self.schedule.complete, passes.values())):
                same = self.rehearsal.check(step, {which: self.answers.values[each] for which, each in passes.items()})
            took, rows = self.schedule.seconds[step], int(self.schedule.done[step].sum())
            at = time.monotonic() - self.call.started
            held = self.memory.get((step.member, step.fold), 0.0)
            print(f"step {step}: {rows} rows in {took:.2f} s on {name}, {held:.0f} MB{same}, at {at:.1f} s", flush=True)

    def _failed(self, name: str, chunk: Chunk, why: str, message: str) -> None:
        if self.rehearsal:
            raise PodiumError(message if why == "broken" else f"{chunk.step}: {message}")
        dropped = self.schedule.failed(name, chunk, why, message)  # type: ignore[arg-type]
        what = f"{dropped}: dropped" if dropped else f"{chunk.step}: tried again"
        print(f"problem: {what}: {message}", flush=True)

    def _lost(self, name: str, why: str) -> None:
        """A worker has ended, or was ended: its chunk comes back, and a new one is started."""
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
            elif since is not None and now >= since + STARTING:
                self._lost(name, f"not ready after {STARTING:.0f} s")

    def _improve(self) -> None:
        """Writes the submission that the finished work allows."""
        began, tested = time.monotonic(), self.job.rows.tested
        try:
            probabilities, names = self.answers.probabilities()
        except Exception as error:
            if self.rehearsal:
                raise
            print(f"problem: the stackers failed, the members' equal mean is used: {one_line(error)}", flush=True)
            self.answers.ladder = None
            probabilities, names = self.answers.probabilities()
        self.rungs = Counter(names[:tested])
        ids = self.job.rows.frame["id"][:tested].to_list()
        try:
            write_submission(
                self.call.working / "submission.csv", self.job.form, ids, probabilities[:tested], self.job.competition
            )
        except OSError as error:
            if self.rehearsal:
                raise
            print(f"problem: submission.csv stays as it was: {error}", flush=True)
        self.schedule.present = np.where(np.isfinite(probabilities), probabilities, self.schedule.present)
        self.improved, self.pending = time.monotonic(), False
        self._keep_time(self.improved - began)

    def closing_words(self, elapsed: float) -> list[str]:
        """What to say at the end."""
        lines = [f"rows per rung: {', '.join(f'{name} {count}' for name, count in self.rungs.items())}"]
        left = [step for step in self.schedule.loads if step not in self.schedule.order]
        if left:
            lines.append(f"not begun: {', '.join(map(str, left))}")
        if self.rescued:
            lines.append(f"{self.rescued} rows were computed again in fp32: their logits were not finite")
        return [*lines, f"supervising took {self.working:.2f} of {elapsed:.1f} s"]

    def _keep_time(self, cost: float) -> None:
        self.cost = max(self.cost if self.improved > 0 else 0.0, cost)
        self.schedule.stop = self.call.deadline - SPARE * self.cost
