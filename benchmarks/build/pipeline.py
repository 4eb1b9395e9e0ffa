"""How long a build takes: the demo and the arena run from nothing, and `dvc repro` with nothing to do.

python -m benchmarks.build.pipeline [--arena ../shared/data/arena_real] [--only demo|arena] [--keep FOLDER]

Works in clones of the committed state, temporary ones or below FOLDER, with this environment's Python; set-up is not
counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "pipeline.json"


def main(arena: Path, only: str | None, keep: Path | None) -> None:
    table = json.loads(RESULTS.read_text())["runs"] if only and RESULTS.exists() else {}
    if only != "arena":
        table["demo"] = measure("demo", "", "", keep)
    if only != "demo" and arena.is_dir():
        table["arena"] = measure("arena", "cpu", str(arena.resolve()), keep)
    elif only != "demo":
        print(f"{arena} is not here: the arena run is not measured")
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"date": date.today().isoformat(), "machine": machine(), "runs": table}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    for name, run in table.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in run.items()))


def measure(name: str, preset: str, data: str, keep: Path | None) -> dict[str, Any]:
    """Seconds of a build from nothing and of one with nothing to do, disk, memory, scores, and what members add."""
    with tempfile.TemporaryDirectory() as folder:
        clone = (keep or Path(folder)).resolve() / name
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        (clone / ".venv").symlink_to(ROOT / ".venv")
        if data:
            run([sys.executable, "-m", "pipeline.preset", preset, data], clone)
        build = run(["dvc", "repro"], clone)
        idle = min(run(["dvc", "repro"], clone) for _ in range(3))
        cv = json.loads((clone / "metrics" / "cv.json").read_text())
        diagnostics = json.loads((clone / "artifacts" / "diagnostics.json").read_text())
        return {
            "seconds": round(build, 1),
            "idle_seconds": round(idle, 2),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
            "disk_mb": round(size(clone) / 1e6),
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
            "probe": json.loads((clone / "metrics" / "probe.json").read_text()),
        }


def run(command: list[str], cwd: Path) -> float:
    """Wall seconds of a command that must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = time.monotonic()
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        ends = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{ends}")
    return time.monotonic() - started


def size(folder: Path) -> int:
    """Bytes on disk below `folder`, each hard-linked file once."""
    found = {s.st_ino: s.st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink() for s in [f.stat()]}
    return sum(found.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arena", type=Path, default=ROOT.parent / "shared" / "data" / "arena_real")
    if shutil.which("git") is None:
        raise SystemExit("git is needed")
    parser.add_argument("--only", choices=["demo", "arena"], help="the other one's figures stay as they are")
    parser.add_argument("--keep", type=Path, help="leave the finished clones there")
    arguments = parser.parse_args()
    main(arguments.arena, arguments.only, arguments.keep)
