"""How inputs and results travel between clones: by hash, through DVC's remote, and what dvc.lock says of them.

Nothing here copies a file itself. `dvc push` brings a stage's outputs and its line of the run cache to the remote, `dvc
pull` fetches them; what is told from clone to clone is the stage's entry of dvc.lock, a few hashes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from pipeline.errors import PodiumError

LOCK = "dvc.lock"
WAITS = (1, 2, 4, 8, 16, 32)
"""Seconds before a remote that is away is asked again."""


def record(repository: Any, entries: dict[str, Any]) -> None:
    """Writes entries of dvc.lock, by stage, those of other stages untouched."""
    from dvc.repo import lock_repo
    from dvc.utils.serialize import modify_yaml

    with lock_repo(repository), modify_yaml(LOCK, fs=repository.fs) as written:
        written.setdefault("schema", "2.0")
        written.setdefault("stages", {}).update(entries)


def entries_of(repository: Any, stages: Collection[str]) -> dict[str, Any]:
    """Returns what dvc.lock says of those `stages` that it knows."""
    from dvc.utils.serialize import load_yaml

    known = load_yaml(LOCK, fs=repository.fs)["stages"] if repository.fs.exists(LOCK) else {}
    return {name: known[name] for name in stages if name in known}


def entry_of(repository: Any, name: str) -> dict[str, Any]:
    """Returns what dvc.lock says of a stage that has run."""
    entry: dict[str, Any] = entries_of(repository, [name])[name]
    return entry


def fetch(repository: Any, stages: Collection[str]) -> None:
    """Brings the cached outputs of `stages` here, as dvc.lock knows them."""
    if stages:
        patient(lambda: repository.pull(list(stages)))


def push(repository: Any, *stages: str) -> None:
    """Brings the outputs of `stages` to the remote, with their lines of the run cache.

    `dvc push` leaves out the metrics that git keeps; they are in the cache for the run cache's sake, and go along.
    """
    objects = [each for name in stages for out in repository.stage.load_one(name=name).outs for each in kept(out)]
    patient(lambda: repository.push(list(stages), run_cache=True))
    patient(lambda: repository.cloud.push(objects))


def kept(out: Any) -> list[Any]:
    """Returns the hash of an output that git keeps and DVC caches for its run cache alone."""
    return [] if out.use_cache or not out.hash_info else [out.hash_info]


def restore(repository: Any, name: str, entry: dict[str, Any]) -> None:
    """Makes the result of a stage that ran in another clone that of this one: its entry, and its outputs by hash."""
    from dvc.repo import lock_repo

    record(repository, {name: entry})

    def checkout() -> None:
        with lock_repo(repository):
            stage = repository.stage.load_one(name=name)
            stage.remove_outs()
            repository.stage_cache.restore(stage, run_cache=False, pull=True)  # as `dvc repro --pull`, metrics included

    patient(checkout)


def patient(call: Callable[[], Any]) -> None:
    """Makes a call that needs the remote, and again a little later where that is away.

    Raises: PodiumError with DVC's own words when it is still away after a minute.
    """
    from dvc.exceptions import DvcException

    for wait in (*WAITS, None):
        try:
            call()
            return
        except (DvcException, OSError) as error:
            said = " ".join(str(error).split())
            if wait is None:
                raise PodiumError(f"DVC's remote: {said}; it was asked {len(WAITS) + 1} times") from None
            print(f"DVC's remote: {said}; it is asked again in {wait} s", flush=True)
            time.sleep(wait)
