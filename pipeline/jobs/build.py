"""Runs the stale stages that do not wait for each other side by side, on the places of a Ray.

What is stale says DVC, stage after stage: it is asked about each once those that it waits for are done. Every stage
runs under DVC in a process of its own (pipeline.jobs.work), so its result stands in dvc.lock and the cache as ever.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pipeline.jobs.places
from pipeline.config import Params
from pipeline.jobs.cluster import ADDRESS, check_here, cluster
from pipeline.jobs.graph import Graph, graph_of, perhaps_stale, side_by_side, stale
from pipeline.jobs.places import CARDS, CHOSEN, Places, local_ray, run_stage
from pipeline.jobs.show import Show, StageRun, shown
from pipeline.jobs.travel import entries_of, push, restore
from pipeline.jobs.work import StageRequest
from pipeline.ledger.history import dvc_repository
from pipeline.settings.backbones import NoBackbone
from pipeline.settings.finetuning import NetworkSettings

PLACED = 3
"""So often a stage is placed whose place dies under it."""
THREADS = "OMP_NUM_THREADS"
"""What Ray sets in its workers."""
TRAINS = ("pretrain", "finetune", "distil", "refit")
"""Stages that need a card where there is one, if what they train is a network."""
RESOLVES = ("start", "start_pretrain")
"""Stages that find out what the card computes with, for those that will train on it."""
CORNER = 0.01
"""Of a card, for them."""


def build_side_by_side(jobs: int, params: Params) -> tuple[dict[str, str], list[str]]:
    """Runs what is stale on `jobs` places of this machine, or on the cluster at RAY_ADDRESS.

    A stage that trains a network has its cards to itself where there are any. Does nothing where fewer than two stages
    could run at a time, and none on another machine. Returns the stages that failed, each with its reason, and those
    that wait for them.

    Raises: PodiumError where the cluster cannot be used as it is.
    """
    away = bool(os.environ.get(ADDRESS))
    with dvc_repository(wait=True) as repository:
        commit = check_here(repository) if away else ""
        graph = graph_of(repository)
        waiting = perhaps_stale(graph, repository.status())
        if side_by_side(graph, waiting) < 2 and not (away and any(map(travels, waiting))):
            return {}, []
        with cluster(commit, params) if away else local_ray(jobs) as places, shown() as show:
            build = Build(graph, repository, params, places, show, waiting)
            build.run()
    return build.failed, [name for name in graph if name in build.waiting]


def travels(name: str) -> bool:
    """Tells whether a stage may run in another clone than the driver's: it reads what others have made, and git."""
    return name.partition("@")[0] in (*TRAINS, *RESOLVES)


def on(node: str, soft: bool) -> dict[str, Any]:
    """Returns Ray's words for a node: the driver's, or the one with a fold's checkpoint, another where it is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=soft)}


@dataclass
class Build:
    """One build: what waits, what runs, and what failed."""

    graph: Graph
    repository: Any
    params: Params
    places: Places
    show: Show
    waiting: set[str]
    running: dict[Any, str] = field(default_factory=dict)
    """The lines of a stage, as Ray hands them on -> the stage."""
    placed: dict[str, int] = field(default_factory=dict)
    """Stage -> how often it was placed."""
    failed: dict[str, str] = field(default_factory=dict)

    @cached_property
    def task(self) -> Any:
        """Returns run_stage as Ray knows it."""
        import ray

        ray.cloudpickle.register_pickle_by_value(pipeline.jobs.places)  # a Ray worker may know no pipeline
        return ray.remote(num_returns="streaming", max_retries=0)(run_stage)

    def run(self) -> None:
        """Goes through the graph until nothing runs any more; what waits for a failed stage is left waiting."""
        if self.places.home:
            feeding = {each for name in self.waiting if travels(name) for each in self.graph[name]} - self.waiting
            if feeding:
                push(self.repository, *sorted(feeding))
        self.place()
        while self.running:
            self.listen()
            self.place()

    def place(self) -> None:
        """Places every stage that is stale and waits for none; those that are not stale are done."""
        held = self.waiting | set(self.running.values()) | set(self.failed)
        while ready := [name for name in self.graph if name in self.waiting and not self.graph[name] & held]:
            changed = stale(self.repository, ready)
            for name in ready:
                self.waiting.discard(name)
                if name in changed:
                    self.start(name)
                else:
                    held.discard(name)
            if len(changed) == len(ready):
                return

    def start(self, name: str, near: str = "") -> None:
        """Hands a stage to Ray, which runs it as soon as there is a place; on the node `near` while that is there."""
        places, folder, there = self.places, str(Path.cwd()), {}
        away = bool(places.home) and travels(name)
        inputs = tuple(sorted(self.graph[name])) if away else ()
        share = bool(places.home) and any(travels(each) for each, waits in self.graph.items() if name in waits)
        known = entries_of(self.repository, inputs)
        request = StageRequest(name, self.environment(name), away, inputs, known, share)
        if away:
            folder, there = "", {"memory": places.memory} | (on(near, soft=True) if near else {})
        elif places.home:
            there = on(places.home, soft=False)
        cores = min(places.cores * max(1, self.devices_for(name)), places.most)
        task = self.task.options(num_cpus=cores, num_gpus=self.cards_for(name), **there)
        self.placed[name] = self.placed.get(name, 0) + 1
        self.show.runs[name] = StageRun()
        self.running[task.remote(folder, asdict(request))] = name

    def environment(self, name: str) -> dict[str, str | None]:
        """Returns what the process of a stage is told; None is a variable that is not set.

        It is what `dvc repro` would run the stage in: params.yaml's `threads` alone decide of bits, not Ray's count of
        cores. A stage that needs no card for itself sees those that it would see without Ray.
        """
        cards = CHOSEN if self.cards_for(name) else os.environ.get(CARDS)
        return {THREADS: os.environ.get(THREADS), CARDS: cards}

    def cards_for(self, name: str) -> float:
        """Returns how many cards a stage asks for, where there are any: those that it trains a network on."""
        if not self.places.cards:
            return 0.0
        if name.partition("@")[0] in RESOLVES:
            return CORNER if self.places.home else 0.0
        return float(self.devices_for(name))

    def devices_for(self, name: str) -> int:
        """Returns on how many devices a stage trains a network; 0 for one that trains none."""
        stage, _, key = name.partition("@")
        if stage == "pretrain":
            backbone = self.params.backbones[key]
            return 0 if isinstance(backbone, NoBackbone) else backbone.pretrain.devices
        if stage not in TRAINS:
            return 0
        member = self.params.members[key.rpartition("-")[0] if stage in ("finetune", "distil") else key]
        return member.devices if isinstance(member, NetworkSettings) else 0

    def listen(self) -> None:
        """Waits for the next lines of the stages that run, and writes down which have ended."""
        import ray

        ready: list[Any] = ray.wait(list(self.running), num_returns=1, timeout=1.0)[0]
        for lines in ready:
            name = self.running[lines]
            try:
                said: str | dict[str, Any] = ray.get(next(lines))
            except ray.exceptions.RayError as error:  # its worker or machine is gone
                said = {"died": " ".join(str(error).split())[:200]}
            if isinstance(said, str):
                self.show.said_by(name, said)
                continue
            del self.running[lines]
            if reason := said.get("died"):
                if self.placed[name] < PLACED:
                    self.show.tell(name, f"its place died, it is placed again: {reason}")
                    self.start(name, near=self.show.runs[name].node)
                else:
                    self.failed[name] = f"its place died {PLACED} times: {reason}"
                continue
            last = self.show.ended(name, said["code"])
            if said["code"]:
                self.failed[name] = last
            elif said.get("entry"):
                restore(self.repository, name, said["entry"])
