"""The page while a build runs: what the finished fold models score, what is still to come, and about how long it takes.

`make repro` keeps it in reports/index.html from the first fold model on; the file loads itself anew every few seconds.
The stage `report` puts the whole page in its place, as if this one had never been. Nothing depends on it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

from pipeline.errors import PodiumError
from pipeline.stage import SECONDS

PAGE = Path("reports/index.html")
LOOK, RELOAD = 2.0, 5
"""Seconds between two looks at what is finished, and until a browser loads the page anew."""


class GrowingPage:
    """Rewrites the page in a thread while its `with` lasts, whenever a stage has ended, from the first new fold on.

    It writes nothing where no fold model is made, and never over a page that another has written meanwhile. Set
    `finished` where the build came to its end: should the stage `report` not have run, the page before is put back.
    """

    def __init__(self) -> None:
        self.began, self.finished = time.time(), False
        self.seen: list[tuple[str, int]] = []
        self.before: bytes | None = None
        self.mine: tuple[int, int] | None = None
        """What tells the page that was written last from all others."""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> GrowingPage:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join()
        if self.mine is None or _mark(PAGE) != self.mine:
            return
        if not self.finished:
            self.write(running=False)
        elif self.before is not None:
            PAGE.write_bytes(self.before)

    def watch(self) -> None:
        while not self.over.wait(LOOK):
            self.look()

    def look(self) -> None:
        """Writes the page where a stage has ended since the last look."""
        receipts = sorted(Path("artifacts/receipts").glob("*.json"))
        try:
            found = [(str(file), file.stat().st_mtime_ns) for file in (*receipts, *sorted(SECONDS.glob("*.json")))]
        except FileNotFoundError:
            return  # a stage is just replacing it
        new = any(changed >= 1e9 * self.began for _, changed in found[: len(receipts)])
        if found == self.seen or not new:
            return
        if self.mine is not None and _mark(PAGE) != self.mine:
            self.over.set()  # the stage `report` has taken it, or the user
            return
        self.seen = found
        self.write(running=True)

    def write(self, running: bool) -> None:
        from polars.exceptions import PolarsError

        from pipeline.report.progress import render_progress  # not needed where nothing is built

        try:
            text = render_progress(self.began, RELOAD if running else None)
        except (OSError, ValueError, PodiumError, PolarsError):
            return  # a stage is just replacing what is read here
        if self.mine is None:
            self.before = PAGE.read_bytes() if PAGE.is_file() else None
        PAGE.parent.mkdir(exist_ok=True)
        partial = PAGE.with_name(f".{PAGE.name}.growing")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, PAGE)
        self.mine = _mark(PAGE)


def _mark(file: Path) -> tuple[int, int] | None:
    """Returns what changes whenever a file is written; None where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
