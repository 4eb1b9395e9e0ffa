"""The schedule: hands out the steps chunk by chunk, and keeps what became of them.

It has no process and no clock: the supervisor and the simulator drive the same schedule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipeline.planning.cost import Costs
from pipeline.planning.gain import ExpectedGain
from pipeline.planning.plan import Planned, Situation, plan
from pipeline.planning.steps import Load, Step

IN_A_ROW, IN_ALL = 2, 6
"""A fold model is dropped when it has lost its worker that often, without a chunk done in between or in all."""
BLOCKS, BLOCK = 4, 64
"""A step's rows are taken in about BLOCKS blocks by expected gain, each of at least BLOCK rows and sorted by length, so
that little is padded."""
LONGEST_CHUNK, SHORTEST_CHUNK = 15.0, 0.3
"""Seconds that a chunk shall take."""
JOIN_FACTOR = 2.0
"""Another worker joins a step only if the work left there is at least this many times its loading."""

Failure = Literal["memory", "lost", "broken"]


@dataclass(frozen=True)
class StepChunk:
    """Rows of a step that one worker runs next."""

    step: Step
    rows: np.ndarray
    """Row numbers, the longest first."""
    tokens: float
    squares: float
    opens: bool
    """Whether the worker has to open the fold model first."""
    limit: float
    """Seconds without a word after which the worker counts as hanging."""


@dataclass
class Schedule:
    """The state of all steps; times are seconds on any one clock."""

    loads: Mapping[Step, Load]
    costs: Costs
    expected: ExpectedGain
    stop: float
    """The moment after which no chunk may end."""
    characters: np.ndarray
    present: np.ndarray
    """(rows, outputs) the present means."""
    may: Callable[[str, str], bool] = lambda member, device: True
    everything: bool = False
    """Whether to run every row of every step, whatever it gains, as far as time allows: the dress rehearsal."""
    planless: bool = False
    """Whether the planner has failed: then the steps run in the order of `loads`."""
    patience: float = 60.0
    """Seconds that a worker may be silent in any case."""
    done: dict[Step, np.ndarray] = field(default_factory=dict)
    under_way: dict[Step, np.ndarray] = field(default_factory=dict)
    dropped: dict[Step, str] = field(default_factory=dict)
    seconds: dict[Step, float] = field(default_factory=dict)
    """Step -> seconds that it has taken so far."""
    holds: dict[str, Step | None] = field(default_factory=dict)
    """Device that is alive -> the step whose fold model it has open."""
    planned: list[Planned] = field(default_factory=list)
    order: list[Step] = field(default_factory=list)
    """The steps in the order in which they were begun."""

    def __post_init__(self) -> None:
        for step, load in self.loads.items():
            self.done[step], self.under_way[step] = np.zeros((2, len(load.tokens)), dtype=bool)
        self._in_a_row: Counter[tuple[str, int]] = Counter()
        self._in_all: Counter[tuple[str, int]] = Counter()
        self._caps: dict[str, float] = {}
        self._careful: dict[tuple[str, int], float] = {}
        self._stale = True
        self._probed: set[tuple[str, str]] = set()

    def open_rows(self, step: Step) -> np.ndarray:
        """Returns (rows,) which rows of a step can be handed out; a later pass waits for the first."""
        mask = self.loads[step].eligible & ~self.done[step] & ~self.under_way[step]
        first = Step(step.member, step.fold)
        return mask if step == first else mask & (self.done[first] | self.under_way[first])

    def next_chunk(self, device: str, now: float) -> StepChunk | None:
        """Returns the best chunk for an idle `device`, or None where nothing fits before the stop any more."""
        if self._stale:
            self.planned, self._stale = self._plan(now), False
        own = self.holds[device]
        others = {step for where, step in self.holds.items() if where != device} - {own}
        for each in sorted(self.planned, key=lambda each: (each.step in others, each.step != own)):
            chunk = self._chunk(each, device, now)
            loading = self.costs.loading(each.step.member, device)[0]
            if chunk and (each.step not in others or self._left(each, device) > JOIN_FACTOR * loading):
                self.under_way[each.step][chunk.rows] = True
                if each.step not in self.order:
                    self.order.append(each.step)
                return chunk
        return None

    def finished(self, device: str, chunk: StepChunk, loading: float | None, seconds: float) -> None:
        """Records that `chunk` was done in `seconds`, after `loading` (None where the fold model was open already)."""
        step = chunk.step
        self.under_way[step][chunk.rows], self.done[step][chunk.rows] = False, True
        self._in_a_row.pop((step.member, step.fold), None)
        self._careful.pop((step.member, step.fold), None)
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds + (loading or 0.0)
        self.costs.observe(step.member, device, chunk.tokens, chunk.squares, seconds)
        if loading is not None:
            self.costs.observe_load(step.member, device, loading)
        self.holds[device] = step
        self._probed.add((step.member, device))
        self._stale = True

    def failed(self, device: str, chunk: StepChunk, why: Failure, message: str) -> str | None:
        """Takes back a chunk that was not done; returns what is dropped, in words, or None where it is tried again.

        `memory`: half as much at a time; a single row that does not fit stays without an answer of this step. `lost`:
        the worker has ended; if that happens again and again, the fold model is dropped. `broken`: dropped at once.
        """
        step = chunk.step
        self.under_way[step][chunk.rows] = False
        self._stale = True
        if why == "memory":
            self._caps[step.member] = chunk.tokens / 2
            if len(chunk.rows) > 1:
                return None
            self.done[step][chunk.rows] = True
            self._caps.pop(step.member)  # it was this row, and not how many there were
            return f"one row of {step}: {message}"
        if why == "lost":
            self.holds.pop(device, None)
            model = step.member, step.fold
            self._careful[model] = chunk.tokens / 2  # it may have taken too much memory: the system ends such a process
            self._in_a_row[model] += 1
            self._in_all[model] += 1
            if self._in_a_row[model] < IN_A_ROW and self._in_all[model] < IN_ALL:
                return None
        for other in self.loads:
            if (other.member, other.fold) == (step.member, step.fold):
                self.dropped[other] = message
        return str(Step(step.member, step.fold))

    def add_device(self, device: str) -> None:
        """Adds a device whose worker is ready."""
        self.holds[device], self._stale = None, True

    def lose_device(self, device: str) -> None:
        """Removes a device whose worker has ended."""
        self.holds.pop(device, None)
        self._stale = True

    def complete(self, step: Step) -> bool:
        """Returns whether all rows of the step are done."""
        return bool((self.done[step] | ~self.loads[step].eligible).all())

    def chunk_seconds(self, now: float) -> float:
        """Returns how long a chunk should take, so that losing one costs little and the end is met closely."""
        return float(np.clip(0.02 * (self.stop - now), SHORTEST_CHUNK, LONGEST_CHUNK))

    def _plan(self, now: float) -> list[Planned]:
        alive = {step: self.open_rows(step) for step in self.loads if step not in self.dropped}
        begun = frozenset(step for step in self.holds.values() if step)
        seconds = dict.fromkeys(self.holds, max(self.stop - now, 0.0))
        situation = Situation(
            alive, self.loads, begun, seconds, self.may, self.chunk_seconds(now), self.present, self.characters
        )
        try:
            found = [] if self.planless else plan(situation, self.costs, self.expected)
        except Exception as error:
            if self.everything:
                raise
            print(f"problem: no plan: {type(error).__name__}: {error}; the steps run as they are listed", flush=True)
            found, self.planless = [], True
        if self.everything or self.planless:
            found = [each for each in found if each.rows is None]
            rest = [step for step, mask in alive.items() if mask.any() and step not in {each.step for each in found}]
            found += [Planned(step, None, None, 0.0, 0.0, 0.0) for step in rest]
        return found

    def _left(self, planned: Planned, device: str) -> float:
        """Returns the expected seconds of the open rows on the device."""
        mask, load = self.rows_of(planned), self.loads[planned.step]
        return self.costs.expect(planned.step.member, device, load.tokens @ mask, load.squares @ mask)[0]

    def rows_of(self, planned: Planned) -> np.ndarray:
        """Returns (rows,) which rows of a planned step can be handed out."""
        mask = self.open_rows(planned.step)
        return mask if planned.rows is None else mask & planned.rows

    def _chunk(self, planned: Planned, device: str, now: float) -> StepChunk | None:
        """Returns the next rows of a step: at first its longest, then block by block, as many as one chunk should hold;
        None where there are none, or where not even one of them is sure to end before the stop."""
        step, load = planned.step, self.loads[planned.step]
        rows = np.flatnonzero(self.rows_of(planned))
        if not len(rows) or not self.may(step.member, device):
            return None
        # A device that has not run the member yet begins with the longest rows of all: memory runs out at once or
        # never. A third of a chunk will do there, for what it costs is only a guess. After that come the rows that gain
        # most per token, so that the time there is goes to the best of them. But a batch is padded to its longest row:
        # hence not row by row, but a block of rows by gain, and the longest first within it.
        probing = (step.member, device) not in self._probed
        if not probing and planned.rung and len(rows) > BLOCK:
            gains = self.expected.row_gains(planned.rung, self.present[rows], self.characters[rows])
            best = np.argsort(-gains / np.maximum(load.tokens[rows], 1.0), kind="stable")
            rows = rows[best[: max(BLOCK, len(rows) // BLOCKS)]]
        rows = rows[np.argsort(-load.tokens[rows], kind="stable")]
        # As many rows as fill a chunk's time by what each is expected to take, and at most half the tokens with which
        # the member ran out of memory or the fold model lost its last worker.
        held = self.holds[device]
        opens = held is None or (held.member, held.fold) != (step.member, step.fold)
        loading, spread = self.costs.loading(step.member, device) if opens else (0.0, 0.0)
        target = self.chunk_seconds(now) / (3.0 if probing else 1.0)
        rates = self.costs.rates(step.member, device)
        work = np.cumsum(rates[1] * load.tokens[rows] + rates[2] * load.squares[rows])
        count = max(1, int(np.searchsorted(work, target, side="right")))
        if self.everything:  # several chunks of every step, so that its costs can be told apart
            count = min(count, -(-int(load.eligible.sum()) // 3))
        cap = min(self._caps.get(step.member, np.inf), self._careful.get((step.member, step.fold), np.inf))
        count = max(1, min(count, int(np.searchsorted(np.cumsum(load.tokens[rows]), cap, side="right"))))
        # The chunk must end before the stop by its upper bound, of two standard deviations: those of its work and of
        # its loading are independent and add up in squares. Where it would not, half the rows may, though loading takes
        # as long for them. Six times this bound is when a worker is taken to hang.
        while count:
            taken = rows[:count]
            tokens, squares = float(load.tokens[taken].sum()), float(load.squares[taken].sum())
            mean, deviation = self.costs.expect(step.member, device, tokens, squares)
            upper = mean + loading + 2.0 * float(np.hypot(deviation, spread))
            if now + upper <= self.stop:
                limit = max(self.patience, 6.0 * upper)
                return StepChunk(step, taken, tokens, squares, opens, limit)
            count //= 2
        return None
