"""Stages as DVC runs them, one after the other: the process behind a place of `make repro JOBS=n`.

python -u -m pipeline.jobs.work        # pipeline.jobs.places holds both ends

A line of stdin asks for a stage: its name, and its environment, in JSON. On stdout comes what the stage prints, then
END and its exit code. When stdin ends, the process is killed, and with it the stage.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any

from pipeline.errors import PodiumError
from pipeline.stage import escape_console, stage

END = "\0"


def requests() -> Iterator[dict[str, Any]]:
    """Yields what comes on stdin, and kills this process group, a stage at work included, once stdin has ended.

    So ends a stage whose Ray worker, raylet or driver was killed, in whatever way. A stage's own stdin is empty.
    """
    came: queue.Queue[str] = queue.Queue()
    held = os.fdopen(os.dup(0), encoding="utf-8")  # not inherited
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def watch() -> None:
        for line in held:
            came.put(line)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    while True:
        yield json.loads(came.get())


def reproduce(name: str) -> None:
    """Lets DVC run the stage `name` alone where it is stale, and write its part of dvc.lock.

    DVC frees the repository's lock while the stage's command runs, so that others run beside it.

    Raises: SystemExit where that command fails, which has said why itself; PodiumError with DVC's own words else.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo(_wait_for_lock=True) as repository:
            repository.reproduce(name, single_item=True)
    except DvcException as error:
        cause = error.__cause__ or error
        if isinstance(cause, StageCmdFailedError):
            raise SystemExit(2) from None
        raise PodiumError(f"dvc: {' '.join(str(cause).split())}") from None


def main() -> None:
    escape_console()
    for request in requests():
        for key, value in request["environment"].items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
        code: Any = 0
        try:
            with stage("work", keep_seconds=False):
                reproduce(request["stage"])
        except SystemExit as end:
            code = end.code
        print(f"{END}{code}", flush=True)


if __name__ == "__main__":
    main()
