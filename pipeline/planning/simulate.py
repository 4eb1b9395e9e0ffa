"""A kernel in simulated time: the real schedule, with expected or drawn seconds in place of worker processes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.planning.schedule import Schedule, StepChunk

READY = 5.0
"""Seconds that a worker needs to start."""


@dataclass(frozen=True)
class Outcome:
    """What happens to a chunk."""

    loading: float
    """Seconds of opening the fold model; they do not count where it is open already."""
    seconds: float
    fate: Literal["done", "lost", "memory", "broken"] = "done"
    """`lost`: the worker dies at the end of these seconds."""


def simulate(
    schedule: Schedule,
    devices: list[str],
    begin: float,
    outcome: Callable[[str, StepChunk], Outcome],
    finished: Callable[[StepChunk], None] = lambda chunk: None,
    restart: float = READY,
) -> float:
    """Returns when the last chunk ends, or the stop if one is in flight then, on the schedule's clock in seconds.

    Workers are ready at `begin`, and `restart` seconds after one has died. `outcome` tells what happens to a device's
    chunk, and `finished` is called with every chunk that is done.
    """
    waiting = [(begin, place, "ready", device) for place, device in enumerate(devices)]
    heapq.heapify(waiting)
    flying: dict[str, tuple[StepChunk, Outcome]] = {}
    idle: set[str] = set()
    now, count = begin, len(devices)
    while waiting:
        now, _, event, device = heapq.heappop(waiting)
        if now >= schedule.stop:
            return schedule.stop
        if event == "ready":
            schedule.add_device(device)
        else:
            chunk, found = flying.pop(device)
            if found.fate == "done":
                schedule.finished(device, chunk, found.loading if chunk.opens else None, found.seconds)
                finished(chunk)
            else:
                schedule.failed(device, chunk, found.fate, found.fate)
        if device not in schedule.holds:
            count += 1
            heapq.heappush(waiting, (now + restart, count, "ready", device))
        else:
            idle.add(device)
        for each in sorted(idle):
            if chunk_ := schedule.next_chunk(each, now):
                idle.remove(each)
                found = outcome(each, chunk_)
                flying[each] = chunk_, found
                count += 1
                took = found.seconds + (found.loading if chunk_.opens else 0.0)
                heapq.heappush(waiting, (now + took, count, "end", each))
    return now
