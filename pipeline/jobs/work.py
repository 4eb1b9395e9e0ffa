"""Stages as DVC runs them, one after the other: the process behind a place of `make repro JOBS=n`.

python -u -m pipeline.jobs.work        # pipeline.jobs.places holds both ends

A line of stdin asks for a stage, a StageRequest as JSON. On stdout comes what the stage prints, then END and an Answer.
When stdin ends, or the process is killed, its stage is killed too.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import PodiumError
from pipeline.jobs.checkpoints import travelling
from pipeline.jobs.places import END
from pipeline.jobs.travel import entry_of, fetch, push, record
from pipeline.stage import escape_console, stage


@dataclass(frozen=True)
class StageRequest:
    """A stage that is to be run."""

    stage: str
    environment: dict[str, str | None]
    """What is set in its process, and what is not, None."""
    away: bool = False
    """In another clone than the driver's: inputs come from DVC's remote."""
    inputs: tuple[str, ...] = ()
    """The stages whose outputs it reads; of one that is away."""
    known: dict[str, Any] = field(default_factory=dict)
    """What the driver's dvc.lock says of those and of the stage; of one that is away."""
    share: bool = False
    """Its outputs go to the remote: others need them."""


@dataclass(frozen=True)
class Answer:
    """How a stage ended."""

    code: int
    entry: dict[str, Any] | None = None
    """What dvc.lock says of it now; of one that was away."""


def die_together() -> None:
    """Has this process group, the stage at work included, killed when this process is gone, in whatever way.

    A process of its own waits for that: Ray kills the children of a worker, and not theirs.
    """
    waits, held = os.pipe()  # a stage inherits neither
    if os.fork() == 0:
        os.close(held)
        os.read(waits, 1)
        os.killpg(0, signal.SIGKILL)
    os.close(waits)


def requests() -> Iterator[StageRequest]:
    """Yields what comes on stdin, and ends this process once stdin has ended: worker, raylet or driver are gone.

    A stage's own stdin is empty.
    """
    came: queue.Queue[str] = queue.Queue()
    held = os.fdopen(os.dup(0), encoding="utf-8")  # not inherited
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def watch() -> None:
        for line in held:
            came.put(line)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        yield StageRequest(**json.loads(came.get()))


def reproduce(asked: StageRequest) -> dict[str, Any] | None:
    """Lets DVC run a stage alone where it is stale, and write its part of dvc.lock; returns that of one that is away.

    DVC frees the repository's lock while the stage's command runs, so that others run beside it.

    Raises: SystemExit where that command fails, which has said why itself; PodiumError with DVC's own words else.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo(_wait_for_lock=True) as repository:
            if asked.away:
                record(repository, asked.known)
                fetch(repository, asked.inputs)
            remote = repository.cloud.get_remote(command="push") if asked.away else None
            with travelling(remote, asked.stage) if remote else nullcontext():
                repository.reproduce(asked.stage, single_item=True, pull=asked.away)
                if asked.away or asked.share:
                    push(repository, asked.stage)
            return entry_of(repository, asked.stage) if asked.away else None
    except DvcException as error:
        cause = error.__cause__ or error
        if isinstance(cause, StageCmdFailedError):
            raise SystemExit(2) from None
        raise PodiumError(f"dvc: {' '.join(str(cause).split())}") from None


def main() -> None:
    escape_console()
    die_together()
    for asked in requests():
        for key, value in asked.environment.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        try:
            with stage("work", keep_seconds=False):
                answer = Answer(0, reproduce(asked))
        except SystemExit as end:
            answer = Answer(int(end.code or 0))
        print(f"{END}{json.dumps(asdict(answer))}", flush=True)


if __name__ == "__main__":
    main()
