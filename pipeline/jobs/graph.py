"""Which stages of DVC's graph may have to run, and which of them can run now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import TopologicalSorter
from typing import Any

Graph = Mapping[str, frozenset[str]]
"""Stage -> the stages that it waits for."""


def graph_of(repository: Any) -> Graph:
    """Returns the graph of a DVC repository, each stage after those that it waits for."""
    found = repository.index.graph
    waits = {each.addressing: frozenset(other.addressing for other in found.successors(each)) for each in found}
    return {name: waits[name] for name in TopologicalSorter(waits).static_order()}


def stale(repository: Any, stages: Collection[str]) -> set[str]:
    """Returns those of `stages` that DVC would run now.

    `dvc status STAGE ...` reads dvc.yaml and dvc.lock anew for each of them, a second of the CPU every time.
    """
    from dvc.repo import lock_repo

    with lock_repo(repository):
        return {each.addressing for each in repository.index.stages if each.addressing in stages and each.status()}


def perhaps_stale(graph: Graph, changed: Iterable[str]) -> set[str]:
    """Returns the `changed` stages and all that follow from them, directly or not."""
    stale = set(changed)
    for name, waits in graph.items():
        if waits & stale:
            stale.add(name)
    return stale


def side_by_side(graph: Graph, stages: set[str]) -> int:
    """Returns the most of `stages` that are equally far from the first ones: about how many could run at a time."""
    depth: dict[str, int] = {}
    for name in (each for each in graph if each in stages):
        depth[name] = 1 + max((depth[each] for each in graph[name] & stages), default=0)
    return max((list(depth.values()).count(each) for each in set(depth.values())), default=0)
