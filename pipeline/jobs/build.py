"""Runs the stale stages that do not wait for each other side by side, on the places of a Ray.

What is stale says DVC, stage after stage: it is asked about each once those that it waits for are done. Every stage
runs under DVC in a process of its own (pipeline.jobs.work), so its result stands in dvc.lock and the cache as ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Params
from pipeline.jobs.graph import Graph, graph_of, perhaps_stale, side_by_side
from pipeline.jobs.places import CARDS, CHOSEN, local_ray, run_stage
from pipeline.jobs.show import Run, Show, shown
from pipeline.ledger.history import dvc_repository
from pipeline.settings.finetuning import NetworkSettings

PLACED = 3
"""So often a stage is placed whose place dies under it."""
THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS")
TRAINS = ("pretrain", "finetune", "refit")
"""Stages that need a card where there is one, if what they train is a network."""


def build_side_by_side(jobs: int, params: Params) -> tuple[dict[str, str], list[str]]:
    """Runs what is stale on `jobs` places; a stage that trains a network has a card to itself where there are any.

    Does nothing where fewer than two stages could run at a time. Returns the stages that failed, each with its
    reason, and those that wait for them.
    """
    with dvc_repository(wait=True) as repository:
        graph = graph_of(repository)
        waiting = perhaps_stale(graph, repository.status())
        if side_by_side(graph, waiting) < 2:
            return {}, []
        with local_ray(jobs) as cards, shown() as show:
            build = Build(graph, repository.status, params, cards, show, waiting)
            build.run()
    return build.failed, [name for name in graph if name in build.waiting]


@dataclass
class Build:
    """One build: what waits, what runs, and what failed."""

    graph: Graph
    status: Callable[[list[str]], Mapping[str, Any]]
    params: Params
    cards: int
    show: Show
    waiting: set[str]
    running: dict[Any, str] = field(default_factory=dict)
    """The lines of a stage, as Ray hands them on -> the stage."""
    placed: dict[str, int] = field(default_factory=dict)
    """Stage -> how often it was placed."""
    failed: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Goes through the graph until nothing runs any more; what waits for a failed stage is left waiting."""
        self.place()
        while self.running:
            self.listen()
            self.place()

    def place(self) -> None:
        """Places every stage that is stale and waits for none; those that are not stale are done."""
        held = self.waiting | set(self.running.values()) | set(self.failed)
        while ready := [name for name in self.graph if name in self.waiting and not self.graph[name] & held]:
            changed = self.status(ready)
            for name in ready:
                self.waiting.discard(name)
                if name in changed:
                    self.start(name)
                else:
                    held.discard(name)
            if len(changed) == len(ready):
                return

    def start(self, name: str) -> None:
        """Hands a stage to Ray, which runs it as soon as there is a place."""
        import ray

        self.placed[name] = self.placed.get(name, 0) + 1
        task = ray.remote(num_returns="streaming", num_cpus=1, num_gpus=self.cards_for(name), max_retries=0)(run_stage)
        self.running[task.remote(name, str(Path.cwd()), self.environment(name))] = name
        self.show.runs[name] = Run()

    def environment(self, name: str) -> dict[str, str | None]:
        """Returns what the process of a stage is told; None is a variable that is not set.

        Libraries that hear nothing of threads would take all cores, or what Ray sets. A stage that needs no card for
        itself sees those that it would see without Ray.
        """
        threads = dict.fromkeys(
            ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"), str(self.params.threads)
        )
        return threads | {CARDS: CHOSEN if self.cards_for(name) else os.environ.get(CARDS)}

    def cards_for(self, name: str) -> int:
        """Returns 1 for a stage that trains a network on a machine with cards, else 0."""
        stage, _, key = name.partition("@")
        if not self.cards or stage not in TRAINS:
            return 0
        if stage == "pretrain":
            return int(self.params.backbones[key].source != "none")
        member = self.params.members[key.rpartition("-")[0] if stage == "finetune" else key]
        return int(isinstance(member, NetworkSettings))

    def listen(self) -> None:
        """Waits for the next lines of the stages that run, and writes down which have ended."""
        import ray

        ready: list[Any] = ray.wait(list(self.running), num_returns=1, timeout=1.0)[0]
        for lines in ready:
            name = self.running[lines]
            try:
                said: str | int = ray.get(next(lines))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
                del self.running[lines]
                if self.placed[name] < PLACED:
                    self.show.tell(name, "its place died; placed again")
                    self.start(name)
                else:
                    self.failed[name] = f"its place died {PLACED} times"
                continue
            if isinstance(said, str):
                self.show.said_by(name, said)
                continue
            del self.running[lines]
            last = self.show.ended(name, said)
            if said:
                self.failed[name] = last
