"""A Ray cluster that runs already (RAY_ADDRESS): looked at as a whole before a stage is placed on it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.errors import UNDER_REPRO, PodiumError
from pipeline.jobs.places import QUIET, Places
from pipeline.models.backbones.foresight import foreseen
from pipeline.resources import devices_asked, place_memory

ADDRESS = "RAY_ADDRESS"
COMPARED = ("torch", "transformers", "numpy", "lightgbm", "dvc")
"""Libraries of which every machine must have the same version."""
EDITS = ("status", "--porcelain", "--untracked-files=all", "--", ".", ":!dvc.lock", ":!metrics")
"""What is in no commit, but for what a build writes into files that git keeps."""


def check_here(repository: Any) -> str:
    """Returns the commit that workers must have.

    Raises: PodiumError where DVC has no remote, or this clone has edits that are in no commit.
    """
    if "remote" not in repository.config["core"]:
        raise PodiumError(
            "dvc: results of other machines travel through DVC's remote, and none is set; "
            "`dvc remote add --default NAME URL` and commit .dvc/config"
        )
    repository.cloud.get_remote(command="push")  # where DVC cannot speak its protocol, it says so here
    if edits := _git(*EDITS):
        names = ", ".join(line[3:] for line in edits[:3]) + (", ..." if len(edits) > 3 else "")
        raise PodiumError(f"{names}: not committed; other machines train what is committed: `git commit` first")
    return _git("rev-parse", "HEAD")[0]


def _git(*command: str, folder: str = ".") -> list[str]:
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PodiumError(f"git {command[0]}: {' '.join(done.stderr.split())}")
    return [line for line in done.stdout.split("\n") if line]


def about_versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Returns the installed versions; CPU and CUDA builds of torch are one."""
    return {library: version(library).split("+")[0] for library in libraries}


def about_machine(libraries: tuple[str, ...]) -> dict[str, Any]:
    """Returns clone, commit, edits and versions of the machine that it runs on, in a Ray worker; or what is `wrong`."""
    clone = os.environ.get("PODIUM_CLONE", "")
    if not os.path.isfile(os.path.join(clone, "dvc.yaml")):
        return {"wrong": f'PODIUM_CLONE: expected the folder of a clone where `ray start` was called, found "{clone}"'}
    try:
        commit, edits = _git("rev-parse", "HEAD", folder=clone)[0], _git(*EDITS, folder=clone)
        versions = about_versions(libraries)
    except Exception as error:
        return {"wrong": f"{clone}: {error}"}
    return {"clone": clone, "commit": commit, "edits": edits, "versions": versions}


@contextmanager
def cluster(commit: str, params: Params) -> Iterator[Places]:
    """Joins the cluster at RAY_ADDRESS, and looks at each of its machines.

    Raises: PodiumError that names the first machine with another commit, edits, other versions, or no room for a stage.
    """
    address = os.environ[ADDRESS]
    host, _, port = address.rpartition(":")
    expected = f'{ADDRESS}: expected host:port of a Ray whose node this machine is, found "{address}"'
    if address != "auto":
        if not host or not port.isdecimal() or "/" in host:
            raise PodiumError(expected)
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise PodiumError(f"{ADDRESS}: {address}: {error}") from None
    os.environ |= QUIET
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # each cause has a type of its own, and a paragraph
        raise PodiumError(f"{ADDRESS}: {address}: {' '.join(str(error).split())[:300]}") from None
    try:
        facts = {name: foreseen(name, each, Artifacts()) for name, each in params.backbones.items()}
        places = Places(
            cards=ray.cluster_resources().get("GPU", 0) > 0,
            cores=params.threads,
            memory=int(place_memory(params, facts)),
            home=ray.get_runtime_context().get_node_id(),
        )
        check_machines(ray, commit, places, max(devices_asked(params).values(), default=1))
        yield places
    finally:
        ray.shutdown()
        del os.environ[UNDER_REPRO]


def check_machines(ray: Any, commit: str, places: Places, devices: int) -> None:
    """Raises PodiumError that names the first machine of the cluster that cannot do its part.

    devices: the most that a fold is trained on, all of them of one machine.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [each for each in ray.nodes() if each["Alive"]]
    if max(each["Resources"].get("CPU", 0) for each in nodes) < places.cores:
        raise PodiumError(f"params.yaml: threads: {places.cores:.0f}: no machine of the cluster offers so many cores")
    wanted = {"CPU": devices * places.cores, "GPU": devices * places.cards}
    if not any(all(each["Resources"].get(key, 0) >= count for key, count in wanted.items()) for each in nodes):
        raise PodiumError(
            f"params.yaml: devices: {devices}: no machine of the cluster offers so many GPUs, or {wanted['CPU']:.0f} "
            "cores for them"
        )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a Ray worker may know no pipeline
    task, expected = ray.remote(num_cpus=0)(about_machine), about_versions(COMPARED)
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        about = ray.get(task.options(scheduling_strategy=there).remote(COMPARED))
        wrong = about.get("wrong") or ""
        if not wrong and about["commit"] != commit:
            wrong = f"{about['clone']}: expected commit {commit[:12]}, as here, found {about['commit'][:12]}"
        if not wrong and about["edits"]:
            wrong = f"{about['clone']}: not committed there: {', '.join(line[3:] for line in about['edits'][:3])}"
        for library in COMPARED if not wrong else ():
            if about["versions"][library] != expected[library]:
                wrong = f"expected {library} {expected[library]}, as here, found {about['versions'][library]}"
        if wrong:
            raise PodiumError(f"{node['NodeManagerHostname']}: {wrong}")
