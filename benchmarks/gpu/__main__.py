"""Is Podium right on a GPU, and how fast? Real code, the real shapes, random weights, one command.

python -m benchmarks.gpu [--parts parity resume ...] [--minutes 8] [--output FOLDER]
# minutes: not measured, 8 at most; writes gpu.json and gpu.md to FOLDER, or benchmarks/results, after every part
python -m benchmarks.gpu --tiny --device cpu        # tries every part out, in minutes, and writes nothing

It says first which packages are missing and what is not measured for it, and ends with a line for each goal: met,
missed, or not measured. A part that fails, crashes or hangs costs its own rows alone. Results of parts not asked for
stay if they are of the same card; docs/gpu.md says what they mean, and how to run this without a network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu.goals import goals
from benchmarks.gpu.parts import PARTS, REQUIRED, UNUSED, missing
from benchmarks.gpu.worker import limit
from benchmarks.result import RESULTS, command_line, machine, markdown

GRACE = 15.0
"""Seconds that the last row of a part may go on beyond its part's limit and a half."""
SAME = ("card", "torch", "cuda", "tiny")
"""Of results that may stand beside each other."""
STATES = {True: "yes", False: "**no**"}


class Watch:
    """What the processes have told so far, as the result has it."""

    def __init__(self, output: Path | None) -> None:
        self.output = output
        self.result: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine(), "parts": {}}
        self.read = 0
        self.running: str | None = None
        self.since = 0.0
        self.ended: set[str] = set()

    def hear(self, events: Path) -> None:
        """Takes in the lines that are new; half a line waits."""
        with events.open(encoding="utf-8") as stream:
            stream.seek(self.read)
            told = stream.read()
        whole = told[: told.rfind("\n") + 1]
        self.read += len(whole.encode())
        for line in whole.splitlines():
            self._take(json.loads(line))
        if whole:
            self.write()

    def _take(self, event: dict[str, Any]) -> None:
        if "about" in event:
            about = event["about"]
            if "card" not in self.result and self.output and (self.output / "gpu.json").is_file():
                before = json.loads((self.output / "gpu.json").read_text(encoding="utf-8"))
                if all(before.get(key) == about[key] for key in SAME):
                    self.result["parts"] = before["parts"]
            self.result |= about
        elif "row" in event:
            assert self.running
            self.result["parts"][self.running]["rows"].append(event["row"])
        elif event.keys() == {"part"}:
            self.running, self.since = event["part"], time.monotonic()
            self.result["parts"][self.running] = {"date": date.today().isoformat(), "rows": []}
        else:
            self.end(event["part"], {key: each for key, each in event.items() if key != "part"})

    def end(self, name: str, facts: dict[str, Any]) -> None:
        """A part has come to its end, one way or another."""
        part = self.result["parts"] if self.running == name else self.result["parts"] | {name: {}}
        self.result["parts"] = part
        part[name] |= {"date": date.today().isoformat()} | facts
        self.running = None
        self.ended.add(name)

    def write(self) -> None:
        """Replaces gpu.json and gpu.md, once there is something to say."""
        if self.output and "card" in self.result:
            self.output.mkdir(parents=True, exist_ok=True)
            for name, text in (("gpu.json", json.dumps(self.result, indent=1)), ("gpu.md", page(self.result))):
                partial = self.output / f".{name}.partial"
                partial.write_text(text + "\n", encoding="utf-8")
                partial.replace(self.output / name)


def main(
    parts: Sequence[str],
    device: str,
    tiny: bool,
    minutes: float,
    output: Path | None,
    worker: Sequence[str] = (sys.executable, "-m", "benchmarks.gpu.worker"),
) -> dict[str, Any]:
    """Runs the parts in processes that are watched, and writes what they find to the folder `output`, if one is given.

    The first, the card's rate, is always among them. Returns the result as it was written.
    """
    until = time.monotonic() + 60 * minutes
    watch, asked = Watch(output), [each for each in PARTS if each == "card" or each in parts]
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        events.touch()
        while rest := [each for each in asked if each not in watch.ended]:
            if time.monotonic() > until:
                break
            code = _watched(watch, events, [*worker, str(events), *rest], device, tiny, until)
            if watch.running:  # its end has not been told
                watch.end(watch.running, {"failed": code})
            elif rest == [each for each in asked if each not in watch.ended]:  # nothing has begun: nothing would
                for name in rest:
                    watch.end(name, {"failed": f"not measured: {code}"})
        for name in asked:
            if name not in watch.ended:
                watch.end(name, {"failed": "not measured: out of time"})
    watch.write()
    return watch.result


def _watched(watch: Watch, events: Path, command: list[str], device: str, tiny: bool, until: float) -> str:
    """Runs one process to its end, or ends it where a part takes too long. Returns what is to be said of its end."""
    rows = watch.result["parts"].get("card", {}).get("rows", ()) if "card" in watch.ended else ()
    rates = {row["precision"]: row["TFLOPS"] for row in rows if "TFLOPS" in row}
    command += ["--device", device, "--seconds", f"{until - time.monotonic():.0f}", "--rates", json.dumps(rates)]
    said = ""
    with subprocess.Popen(command + ["--tiny"] * tiny, start_new_session=True) as process:
        try:
            while process.poll() is None:
                watch.hear(events)
                longest = 1.5 * limit(watch.running, tiny) + GRACE if watch.running else float("inf")
                now = time.monotonic()
                if now > watch.since + longest or now > until + GRACE:
                    said = "not measured: out of time"
                    break
                time.sleep(0.1)
        finally:  # its own children, too
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    watch.hear(events)
    return said or f"the process ended with exit code {process.returncode}"


def page(result: dict[str, Any]) -> str:
    """Returns the goals, and a table for each part, in Markdown."""
    lengths = (16, 24, 32) if result.get("tiny") else (512, 1024, 2048)
    told = [each.told(result["parts"]) for each in goals(lengths)]
    lines = [f"# {result['card']}, torch {result.get('torch')}, CUDA {result.get('cuda')}, {result['date']}", ""]
    lines += [f"`python -m benchmarks.gpu`; {result['machine']}.", ""]
    lines.append(markdown(["goal", "", "found"], [[each["goal"], each["verdict"], each["found"]] for each in told]))
    for name, part in result["parts"].items():
        seconds = f" ({part['seconds']} s)" if "seconds" in part else ""
        lines += ["", f"## {name}{seconds}", ""]
        if rows := part.get("rows"):
            columns = list(dict.fromkeys(key for row in rows for key in row))
            lines += [markdown(columns, [[_cell(row.get(key, "")) for key in columns] for row in rows])]
        if "failed" in part:
            lines += ["", part["failed"]] if rows else [part["failed"]]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return STATES[value]
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def told_missing(parts: Sequence[str]) -> list[str]:
    """Returns a line for each package that is not there: what is not measured for it, or that nothing can be."""
    lines = []
    if lacking := missing(REQUIRED):
        lines.append(f"not installed, and nothing runs without: {', '.join(lacking)}")
    optional = dict.fromkeys(package for name in parts for package in PARTS[name].needs)
    for package in missing(tuple(optional)):
        without = [name for name in parts if package.replace("-", "_") in PARTS[name].needs]
        lines.append(f"not installed: {package}; not measured, as a whole or in part: {', '.join(without)}")
    if missing((UNUSED,)):
        lines.append(f"not installed: {UNUSED}; no part calls it, a stand-in takes its place")
    return lines


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.set_defaults(output=None)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="small networks, nothing written without --output")
    parser.add_argument("--minutes", type=float, default=8.0, help="all parts together; no row begins later")
    given = parser.parse_args()
    for line in told_missing(given.parts):
        print(line, flush=True)
    if missing(REQUIRED):
        sys.exit(2)
    folder = given.output or (None if given.tiny else RESULTS)
    done = main(given.parts, given.device, given.tiny, given.minutes, folder)
    if "card" not in done:  # the process has said why
        sys.exit(2)
    print("\n" + page(done))
