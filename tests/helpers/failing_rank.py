"""The second of two ranks, as it ends in many ways; it loads little."""

from __future__ import annotations

import errno
import os
import signal

from pipeline.errors import DivergedError
from pipeline.training.devices.ranks import own_share


def failing(way: str) -> None:
    """Fails in the second rank, while the first waits for it."""
    share = own_share()
    if share.rank == 1:
        if way == "diverged":
            raise DivergedError("the loss is not finite")
        if way == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if way == "defect":
            raise ValueError("broken")
        if way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "left":
            os._exit(3)
    share.total(1)
