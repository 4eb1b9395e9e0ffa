"""What every benchmark's command has in common: its options, its table for people, and the file with its numbers.

Nothing heavy is imported here before a result is written: a child is measured from what its parent holds.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser that shows a module's docstring as its help and knows the option that every benchmark has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=RESULTS, metavar="FOLDER", help="for the result, in place of benchmarks/results"
    )
    return parser


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table in Markdown; every row has as many cells as there are columns."""
    lines = [f"| {' | '.join(str(cell) for cell in line)} |" for line in (columns, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(columns)}", *lines[1:]])


def write(name: str, table: dict[str, Any], folder: Path = RESULTS, **about: Any) -> dict[str, Any]:
    """Writes `folder`/`name`.json: the date, the machine, what `about` says of the run, and the entries of `table`.

    Returns what was written.
    """
    from pipeline.files import write_json  # loads polars

    result = {"date": date.today().isoformat(), "machine": machine()} | about | table
    write_json(folder / f"{name}.json", result)
    return result


def machine() -> str:
    """Returns processor model, number of cores and Python version as one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"
