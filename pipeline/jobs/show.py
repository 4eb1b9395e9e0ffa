"""What a build tells of the stages at work: one live table in a terminal, else their lines, each under its stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.files import write_text

LOGS = Path("work/logs")
"""What each stage of the last build printed."""


@dataclass
class StageRun:
    """A stage that was placed."""

    began: float = 0.0
    """When its process began; 0 while it waits for a place."""
    machine: str = ""
    node: str = ""
    lines: list[str] = field(default_factory=list)


@dataclass
class Show:
    """The stages of a build: what each prints."""

    console: Console
    runs: dict[str, StageRun] = field(default_factory=dict)
    """By stage, for as long as it is placed."""

    def said_by(self, name: str, text: str) -> None:
        """Takes what comes from a stage's place: the names of machine and node, then the lines of the stage."""
        run = self.runs[name]
        if not run.machine:
            run.began, run.machine = time.monotonic(), text
        elif not run.node:
            run.node = text
        else:
            run.lines.append(text)
            self.tell(name, text)

    def tell(self, name: str, text: str) -> None:
        """Prints a line on a stage where no table is shown."""
        if not self.console.is_terminal:
            print(f"{name}: {text}", flush=True)

    def ended(self, name: str, code: int) -> str:
        """Keeps what a stage has printed, and says how it ended; returns its error, or else its last line."""
        run = self.runs.pop(name)
        write_text(LOGS / f"{name}.log", "".join(f"{line}\n" for line in run.lines))
        ends = f"failed, exit code {code}" if code else "done"
        self.console.print(
            Text(f"{name}: {ends} after {time.monotonic() - run.began:.0f} s"), soft_wrap=True, highlight=False
        )
        errors = [line for line in run.lines if line.startswith("error: ")]
        return (errors or run.lines or ["it printed nothing"])[-1].removeprefix("error: ")

    def table(self) -> Table:
        """Returns the stages at work: machine, seconds so far, and what each has printed last."""
        table = Table("stage", "machine", "seconds", "", box=None, pad_edge=False, expand=True)
        table.columns[3].no_wrap, table.columns[3].ratio = True, 1
        now = time.monotonic()
        for name, run in self.runs.items():
            if run.began:
                last = run.lines[-1] if run.lines else ""
                table.add_row(name, run.machine, f"{now - run.began:.0f}", Text(last, overflow="ellipsis"))
        return table


@contextmanager
def shown() -> Iterator[Show]:
    """Yields what shows the lines of stages, live where stdout is a terminal."""
    console = Console(file=sys.stdout)
    show = Show(console)
    if not console.is_terminal:
        yield show
        return
    with Live(get_renderable=show.table, console=console, refresh_per_second=2, transient=True):
        yield show
