"""Runs a command and follows what it prints, on both streams, with an eye on its silence."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Finished:
    """What a command left: `code` is None where it was ended for its silence, `stopped` where a line ended it."""

    code: int | None
    stopped: bool
    out: str
    errors: str


def follow(
    command: list[str],
    environment: dict[str, str],
    silence: float,
    stop_at: str | None = None,
    show: Callable[[str], None] | None = None,
) -> Finished:
    """Runs `command` to its end, or to a line of stdout that matches `stop_at`, or until it is silent for `silence` s.

    `show` gets the lines of stdout as they come, and from time to time the state of a progress bar on stderr.
    """
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
    kept: dict[str, list[str]] = {"out": [], "errors": []}
    environment = environment | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    code, stopped = None, False
    try:
        for name, stream in (("out", process.stdout), ("errors", process.stderr)):
            threading.Thread(target=_read, args=(stream, name, lines), daemon=True).start()
        shown, running = time.monotonic(), 2
        while running:
            name, line = lines.get(timeout=silence)
            if line is None:
                running -= 1
                continue
            kept[name].append(line)
            late = "%|" in line and time.monotonic() - shown > PROGRESS_SECONDS
            if show and line.strip() and (name == "out" or late):
                show(line.strip())
                shown = time.monotonic()
            if stop_at and name == "out" and re.search(stop_at, line):
                stopped = True
                process.kill()
        code = process.wait()
    except queue.Empty:
        pass
    finally:
        process.kill()
        process.wait()
    return Finished(code, stopped, "\n".join(kept["out"]), "\n".join(kept["errors"]))


def _read(stream: IO[bytes], name: str, lines: queue.Queue[tuple[str, str | None]]) -> None:
    """Splits a stream at line ends and at the carriage returns of a progress bar; None says that it is over."""
    rest = b""
    while piece := os.read(stream.fileno(), 65536):
        *whole, rest = re.split(rb"[\r\n]", rest + piece)
        for line in whole:
            lines.put((name, line.decode("utf-8", "replace")))
    lines.put((name, rest.decode("utf-8", "replace")))
    lines.put((name, None))
    stream.close()
