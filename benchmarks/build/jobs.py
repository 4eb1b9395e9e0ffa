"""What do stages side by side save, and what does it cost to place one?

python -m benchmarks.build.jobs                                  # sleeping stages, then the demo, serial and JOBS=2
python -m benchmarks.build.jobs --only sleeping                  # 5 minutes
python -m benchmarks.build.jobs --rows 500 --members siamese judge --until finetune      # a part of the demo

Writes benchmarks/results/jobs.json. Sleeping stages take no core: they show what placing, DVC's part and Ray cost. The
demo is built in two fresh clones of the committed state, one after the other; equal means every file of fold models,
pretrained backbones, out-of-fold predictions and stack, and metrics/cv.json without its seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process import clone, run
from benchmarks.result import ROOT, command_line, write

SLEEPING, SECONDS, PLACES = 32, 4.0, (1, 2, 4, 8)
COMPARED = ("members", "pretrained", "oof", "stack")


def sleeping(jobs: int) -> dict[str, Any]:
    """Returns the seconds of SLEEPING stages that wait for none on so many places, and their share of what is ideal."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copytree(ROOT / "pipeline", place / "pipeline")
        shutil.copytree(ROOT / ".dvc", place / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
        shutil.copy(ROOT / "params.yaml", place)
        command = f"sleep {SECONDS} && mkdir -p work && touch work/"
        stages = {f"s{n}": {"cmd": f"{command}{n}", "outs": [f"work/{n}"]} for n in range(SLEEPING)}
        (place / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
        (place / ".gitignore").write_text("/work/\n")
        subprocess.run(["git", "init", "-q"], cwd=place, check=True)
        call = f"build_side_by_side({jobs}, load_params())"
        script = f"from pipeline.config import load_params; from pipeline.jobs.build import build_side_by_side; {call}"
        used = run([sys.executable, "-c", script] if jobs > 1 else ["dvc", "repro"], place)
    ideal = SLEEPING * SECONDS / jobs
    return {"seconds": used.seconds, "of_ideal": round(ideal / used.seconds, 3)}


def built(place: Path, jobs: int, rows: int | None, members: list[str], until: str | None) -> dict[str, Any]:
    """Builds a fresh clone, and returns what that took and one hash over what it made."""
    params = yaml.safe_load((clone(place) / "params.yaml").read_text())
    if rows:
        params["demo"]["train_rows"] = rows
    params["members"] = {name: each for name, each in params["members"].items() if not members or name in members}
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    if until:
        graph = yaml.safe_load((place / "dvc.yaml").read_text())
        names = list(graph["stages"])
        graph["stages"] = {name: graph["stages"][name] for name in names[: names.index(until) + 1]}
        (place / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph["stages"]}, sort_keys=False))
    used = run([sys.executable, "-m", "pipeline.repro", "", "", "", str(jobs)], place)
    digest = sha256()
    files = (each for name in COMPARED for each in (place / "artifacts" / name).rglob("*") if each.is_file())
    for file in sorted(files):
        if file.name != "adapter_config.json":  # peft lists a set in any order
            digest.update(f"{file.relative_to(place)}".encode() + file.read_bytes())
    scores = place / "metrics" / "cv.json"
    cv = json.loads(scores.read_text()) if scores.is_file() else {"members": {}}
    for member in cv["members"].values():
        del member["seconds"]
    digest.update(json.dumps(cv).encode())
    return {"seconds": used.seconds, "made": digest.hexdigest()[:16]}


def main(
    only: str | None, rows: int | None, members: list[str], until: str | None, keep: Path | None, output: Path
) -> None:
    before = output / "jobs.json"
    table = json.loads(before.read_text()) if only and before.exists() else {}
    if only != "demo":
        table["sleeping"] = {"stages": SLEEPING, "seconds": SECONDS} | {str(jobs): sleeping(jobs) for jobs in PLACES}
    if only != "sleeping":
        with tempfile.TemporaryDirectory() as folder:
            place = keep or Path(folder)
            found = {jobs: built(place / str(jobs), jobs, rows, members, until) for jobs in (1, 2)}
        table["demo"] = {
            "rows": rows,
            "members": members,
            "until": until,
            **{str(jobs): each for jobs, each in found.items()},
            "times_as_fast": round(found[1]["seconds"] / found[2]["seconds"], 2),
            "equal": found[1]["made"] == found[2]["made"],
        }
    kept = {key: table[key] for key in ("sleeping", "demo") if key in table}
    write("jobs", kept, output, load_before=round(os.getloadavg()[0], 1))
    print(json.dumps(kept, indent=2))


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--only", choices=["sleeping", "demo"], help="the other's figures stay as they are")
    parser.add_argument("--rows", type=int, help="of the demo's training data, in place of params.yaml's")
    parser.add_argument("--members", nargs="*", default=[], help="these of the demo's members alone")
    parser.add_argument("--until", help="the last stage of dvc.yaml that is built")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="the builds of the demo stay there, in 1 and 2")
    given = parser.parse_args()
    main(given.only, given.rows, given.members, given.until, given.keep, given.output)
