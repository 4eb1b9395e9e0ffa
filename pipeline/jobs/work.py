"""One stage in a process of its own, as DVC runs it: what a place of `make repro JOBS=n` does.

python -u -m pipeline.jobs.work finetune@words-0        # with a pipe as stdin; its end kills the stage
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from pipeline.errors import PodiumError
from pipeline.stage import stage


def die_with_stdin() -> None:
    """Kills this process group, the stage included, once nobody holds the other end of stdin any more.

    So ends a stage whose Ray worker, raylet or driver was killed, in whatever way.
    """
    held = os.dup(0)  # not inherited: the stage gets an empty stdin
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def watch() -> None:
        while os.read(held, 1 << 16):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


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


if __name__ == "__main__":
    die_with_stdin()
    with stage("work", keep_seconds=False):
        reproduce(sys.argv[1])
