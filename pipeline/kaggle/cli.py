"""Runs the real kaggle CLI as a subprocess: failures become errors, what can be tried again is, secrets stay secret.

The CLI exits with 0 after many failures, so every caller says how success reads; tests/kaggle/ plays each of these
failures against a server of its own.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PodiumError
from pipeline.kaggle.credentials import Credentials, require_credentials
from pipeline.kaggle.follow import Finished, follow

STATE_FOLDER = Path("work/kaggle")
"""What must survive between two runs and belongs to no commit: half-finished uploads, the last push."""

CLI = (sys.executable, "-P", str(Path(__file__).with_name("logged_cli.py")))

LOST = re.compile(
    r"ConnectionError|Max retries exceeded|Connection aborted|Connection reset|RemoteDisconnected|ProtocolError"
    r"|timed out|NewConnectionError|ProxyError|IncompleteRead|name resolution",
)
"""A connection that was lost or never came about: there is no HTTP status to go by."""

PAGE_SIZE = "200"
"""The most submissions or files that Kaggle lists at once."""

STATUS_CALL = "/GetDatasetStatus"
"""`kaggle datasets create` goes on where this is not found."""

NOT_SIGNED_IN = "Authentication required to call the Kaggle API."


@dataclass(frozen=True)
class Patience:
    """How often a command is tried and how long is waited; all times in seconds."""

    attempts: int = 5
    """A command that met 429, 5xx or a lost connection is run that often in all."""
    backoff: float = 4.0
    """Pause before the second attempt; it doubles with each further one."""
    silence: float = 900.0
    """A command that says nothing for that long is stopped."""
    poll: float = 15.0
    """Between two looks at something that Kaggle works on."""


class KaggleError(PodiumError):
    """A refusal or failure of Kaggle or its CLI; `status` is the HTTP status behind it, None where there was none."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


Judge = Callable[[str], str | None]
"""Takes all that a command printed; returns what went wrong, or None."""


def kaggle(
    *arguments: str,
    patience: Patience,
    judge: Judge = lambda printed: None,
    stop_at: str | None = None,
    echo: bool = False,
    finished: Callable[[], bool] | None = None,
) -> str:
    """Runs `kaggle ARGUMENTS` until it succeeds in the eyes of `judge`, and returns what it printed on stdout.

    A line that matches `stop_at` ends the command at once. `echo` passes its lines and its progress on. `finished` is
    asked after a failure that may pass whether the command had its effect after all; then "" is returned.

    Raises: KaggleError in one line for a refusal (4xx), a failure that stays, or a command that says nothing.
    """
    credentials = require_credentials()
    for attempt in range(1, patience.attempts + 1):
        done, answers = _once(arguments, credentials, patience.silence, stop_at, echo)
        problem, status = _judged(done, answers, patience.silence, judge)
        if problem is None:
            return done.out
        problem = credentials.mask(problem)
        message = f"kaggle {' '.join(arguments[:2])}: {problem}"
        passing = status is None or status == 429 or status >= 500
        if passing and finished is not None and finished():
            return ""
        if not passing or attempt == patience.attempts:
            raise KaggleError(message, status)
        pause = patience.backoff * 2 ** (attempt - 1)
        print(f"{message}; attempt {attempt + 1} of {patience.attempts} in {pause:g} s", flush=True)
        time.sleep(pause)
    raise AssertionError("unreachable")


def json_in(printed: str) -> Any:
    """Returns the JSON that a command printed, after whatever warnings. Raises: KaggleError where there is none."""
    lines = printed.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(("[", "{"))]
    try:
        return json.loads("\n".join(lines[starts[0] :])) if starts else json.loads(printed)
    except ValueError:
        raise KaggleError(f"kaggle: expected JSON, found {printed.strip()[-200:]!r}", 0) from None


def _once(
    arguments: tuple[str, ...], credentials: Credentials, silence: float, stop_at: str | None, echo: bool
) -> tuple[Finished, list[int]]:
    """Runs the CLI once; returns its end and the HTTP status of every answer, without that of STATUS_CALL."""
    (STATE_FOLDER / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
    hidden = {"VERBOSE", "VERBOSE_OUTPUT"}  # with these the CLI prints the key
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    with tempfile.TemporaryDirectory(dir=STATE_FOLDER / "tmp") as folder:
        answers = Path(folder).resolve() / "answers"
        # The CLI keeps its half-finished uploads in the folder for temporary files.
        environment |= {"PODIUM_ANSWERS": str(answers), "TMPDIR": str((STATE_FOLDER / "tmp").resolve())}
        environment["PYTHONIOENCODING"] = "utf-8"  # as it is read here, whatever this console takes
        show = (lambda line: print(f"  {credentials.mask(line)}", flush=True)) if echo else None
        done = follow([*CLI, *arguments], environment, silence, stop_at, show)
        logged = answers.read_text(encoding="utf-8").splitlines() if answers.is_file() else []
    return done, [int(line[:3]) for line in logged if STATUS_CALL not in line]


def _judged(done: Finished, answers: list[int], silence: float, judge: Judge) -> tuple[str | None, int | None]:
    """Returns what went wrong (None: nothing) and the HTTP status behind it (0: no status; None: a lost connection)."""
    if done.code is None:
        return f"no sign of life for {silence:g} s, stopped", 0
    if done.code == 0 or done.stopped:
        problem = "cancelled" if "User cancelled operation" in done.out else judge(done.out)
        status = ([status for status in answers if status >= 400] or [0])[-1]
    else:
        problem = _explanation(done)
        status = answers[-1] if answers and answers[-1] >= 400 else 0
        if status == 401 or problem == NOT_SIGNED_IN:
            return f"{'401: ' if status else ''}Kaggle does not accept these credentials (expired, mistyped?)", 401
        if not status and LOST.search(done.errors):
            return problem, None
    return problem if not status or problem is None or str(status) in problem else f"{status}: {problem}", status


def _explanation(done: Finished) -> str:
    """Returns the CLI's own words in one line: the last line of stderr that is no progress bar, else of stdout."""
    if NOT_SIGNED_IN in done.out:
        return NOT_SIGNED_IN
    for text in (done.errors, done.out):
        lines = [line.strip() for line in text.splitlines() if line.strip() and "%|" not in line]
        if lines:
            return re.sub(r"^[\w.]*(Error|Exception): ", "", lines[-1])[:500]
    return f"exit code {done.code}"
