"""How long does a build take, from nothing and with nothing to do, and how good are the demo and the arena run?

python -m benchmarks.build.pipeline [--only demo|arena] [--keep FOLDER]
# 9 minutes on two cores for the demo, 38 for the arena run; writes benchmarks/results/pipeline.json

Works in clones of the committed state, temporary ones or below FOLDER, with this environment's Python; set-up is not
counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.process import clone, run
from benchmarks.result import ROOT, command_line, write


def main(arena: Path, only: str | None, keep: Path | None, output: Path) -> None:
    before = output / "pipeline.json"
    table = json.loads(before.read_text())["runs"] if only and before.exists() else {}
    if only != "arena":
        table["demo"] = measure("demo", "", "", keep)
    if only != "demo" and arena.is_dir():
        table["arena"] = measure("arena", "cpu", str(arena.resolve()), keep)
    elif only != "demo":
        print(f"{arena} is not here: the arena run is not measured")
    write("pipeline", {"runs": table}, output)
    for name, found in table.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in found.items()))


def measure(name: str, preset: str, data: str, keep: Path | None) -> dict[str, Any]:
    """Returns seconds of a build from nothing and of one with nothing to do, disk, memory, scores, what members add."""
    with tempfile.TemporaryDirectory() as folder:
        place = clone((keep or Path(folder)).resolve() / name)
        if data:
            run([sys.executable, "-m", "pipeline.preset", preset, data], place)
        build = run(["dvc", "repro"], place)
        cv = json.loads((place / "metrics" / "cv.json").read_text())
        diagnostics = json.loads((place / "artifacts" / "diagnostics.json").read_text())
        return {
            "seconds": round(build.seconds, 1),
            "idle_seconds": min(run(["dvc", "repro"], place).seconds for _ in range(3)),
            "peak_mb": round(build.peak_mb),
            "disk_mb": round(size(place) / 1e6),
            "prior": cv["prior"],
            "bayes": cv.get("bayes"),
            "nested": cv["stack"]["score"],
            "holdout": cv["stack"]["holdout"],
            "decisive": cv["decisive"]["stack"],
            "members": {name: each["score"] for name, each in cv["members"].items()},
            "members_decisive": cv["decisive"]["members"],
            "dropped": cv.get("dropped", {}),
            "stack": {name: cv["stack"][name] for name in ("chosen", "best_member", "candidates", "gains")},
            "gains": {each["member"]: each["left_out"] for each in diagnostics["marginal"]},
            "probe": json.loads((place / "metrics" / "probe.json").read_text()),
        }


def size(folder: Path) -> int:
    """Returns the bytes on disk below `folder`, each hard-linked file once."""
    found = {s.st_ino: s.st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink() for s in [f.stat()]}
    return sum(found.values())


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--arena", type=Path, default=ROOT.parent / "shared" / "data" / "arena_real")
    parser.add_argument("--only", choices=["demo", "arena"], help="the other one's figures stay as they are")
    parser.add_argument("--keep", type=Path, help="leave the finished clones there")
    arguments = parser.parse_args()
    main(arguments.arena, arguments.only, arguments.keep, arguments.output)
