"""What `make check` finds in seconds, and what it would cost to find it where the build would stop at it.

python -m benchmarks.build.early --run FOLDER
# a few minutes; writes benchmarks/results/early.json and .md

Each case is a mistake in a copy of the demo. `python -m pipeline.check` is run on it, as `make repro` does before all
else: its line and its seconds. FOLDER is that of a finished `make repro` of the demo: its work/seconds/ tell what the
stages take that come before the one which would refuse, by whose own check `make check` knows it. `kaggle` is the dress
rehearsal there, after the whole build; upload and queue are not counted.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.result import ROOT, command_line, markdown, write
from pipeline.errors import PodiumError
from pipeline.stage import stage

BEFORE = {
    "pretrain": ("demo", "prepare", "folds", "backbone"),
    "start": ("demo", "prepare", "folds", "backbone", "pretrain"),
    "finetune": ("demo", "prepare", "folds", "backbone", "pretrain", "start"),
    "stack": ("demo", "prepare", "folds", "backbone", "pretrain", "start", "finetune", "refit", "probe", "oof"),
}
BEFORE["package"] = (*BEFORE["stack"], "stack")
BEFORE["kaggle"] = (*BEFORE["package"], "package", "rehearse")
"""Stage that would refuse -> the stages that are made before it."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A mistake, as it is made in params.yaml or beside it, and the stage that would have stopped at it."""

    mistake: str
    stage: str
    says: str
    """Words of the line that `make check` must say."""
    make: Callable[[Settings, Path], object]
    """Is given the settings, to be changed, and the folder of the run."""


def member(name: str, **changes: Any) -> Callable[[Settings, Path], object]:
    """Returns what changes settings of a member; `training` and `inference` are laid over what is there."""

    def make(settings: Settings, folder: Path) -> None:
        for key, value in changes.items():
            known = settings["members"][name].get(key)
            settings["members"][name][key] = known | value if isinstance(value, dict) and known else value

    return make


def short_file(settings: Settings, folder: Path) -> None:
    """A teammate's file with half of the training rows."""
    with (folder / "data/demo/train.csv").open(encoding="utf-8", newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream)]
    lines = [f"{each},0.4,0.3,0.3" for each in ids[: len(ids) // 2]]
    text = "\n".join(["id,winner_model_a,winner_model_b,winner_tie", *lines])
    (folder / "external/friend.csv").write_text(text + "\n", encoding="utf-8")
    settings["members"]["friend"] = {"kind": "external", "backbone": "none", "file": "external/friend.csv"}


def no_common_fold(settings: Settings, folder: Path) -> None:
    settings["members"]["words"]["folds"], settings["members"]["judge"]["folds"] = [0], [1, 2]


def large_base(settings: Settings, folder: Path) -> None:
    settings["backbones"]["llama"] |= {"hidden": 4096, "layers": 32, "heads": 32, "vocabulary": 128000}
    settings["backbones"]["llama"]["pretrain"] = {"epochs": 0}
    settings["members"]["judge"]["inference"]["precision"] = "fp16"


def lost_wheel(settings: Settings, folder: Path) -> None:
    (folder / ".venv/wheels").unlink()
    (folder / ".venv/wheels").mkdir()
    for wheel in (ROOT / ".venv/wheels").iterdir():
        if not wheel.name.startswith("lightgbm"):
            (folder / ".venv/wheels" / wheel.name).symlink_to(wheel)


CASES = (
    Case(
        "a file of texts for pretraining that is not there",
        "pretrain",
        "no such file",
        lambda settings, folder: settings["backbones"]["bert"]["pretrain"].update(
            texts="cut", files=["external/more.txt"]
        ),
    ),
    Case(
        "a network of one's own that is not there",
        "start",
        "no such file",
        member("siamese", network="external/mine.py"),
    ),
    Case(
        "more tokens than a decoder has positions",
        "start",
        "positions of backbone",
        member("judge", max_tokens=100_000),
    ),
    Case(
        "an encoder on a decoder's network",
        "start",
        "needs an encoder",
        member("siamese", backbone="llama", recipe=None),
    ),
    Case(
        "fresh layers, more than there are",
        "start",
        "layers of backbone",
        member("siamese", training={"reinit_layers": 9}),
    ),
    Case("a teammate's file with half of the rows", "finetune", "are missing", short_file),
    Case("folds of which all members train none", "stack", "no fold is trained by all", no_common_fold),
    Case("a base that a card of the kernel's machine cannot hold", "kaggle", "a card of package.machine", large_base),
    Case(
        "a machine that Kaggle has retired",
        "kaggle",
        "Kaggle has retired it",
        lambda settings, folder: settings["package"].update(machine="p100"),
    ),
    Case("a wheel that was not fetched", "package", "expected a wheel", lost_wheel),  # the last: nothing brings it back
)


def spent(run: Path, stages: tuple[str, ...]) -> float:
    """Returns the seconds that these stages took in a finished run. Raises: PodiumError where one is missing."""
    found = {file.stem: float(json.loads(file.read_text())) for file in (run / "work/seconds").glob("*.json")}
    lacking = [each for each in stages if not any(name.partition("@")[0] == each for name in found)]
    if lacking:
        raise PodiumError(f"{run}/work/seconds: expected those of a finished `make repro`, found none of {lacking[0]}")
    return sum(seconds for name, seconds in found.items() if name.partition("@")[0] in stages)


def prepared(folder: Path) -> None:
    """Makes a clone of this commit in `folder`, with the demo's rows and folds."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    (folder / ".venv").mkdir()
    (folder / ".venv/wheels").symlink_to((ROOT / ".venv/wheels").resolve())
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "folds"], cwd=folder, env=ENVIRONMENT, check=True)


def look(folder: Path, case: Case) -> tuple[float, str]:
    """Returns the seconds of `make check` under a mistake and the line that names it, and mends params.yaml."""
    file = folder / "params.yaml"
    before = file.read_text(encoding="utf-8")
    settings = yaml.safe_load(before)
    case.make(settings, folder)
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    began, command = time.monotonic(), [sys.executable, "-m", "pipeline.check"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    file.write_text(before, encoding="utf-8")
    lines = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    named = [line for line in lines if case.says in line]
    if done.returncode != 2 or not named:
        raise PodiumError(f"{case.mistake}: expected `make check` to say {case.says!r}, found {lines}")
    return seconds, named[0]


ENVIRONMENT = os.environ | {"DVC_NO_ANALYTICS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def main() -> None:
    """Runs all cases and writes the table."""
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a finished `make repro` of the demo")
    arguments = parser.parse_args()
    later = {name: spent(arguments.run, stages) for name, stages in BEFORE.items()}
    rows = []
    with tempfile.TemporaryDirectory(prefix="podium-early-") as temporary:
        folder = Path(temporary) / "run"
        prepared(folder)
        for case in CASES:
            seconds, line = look(folder, case)
            saved = later[case.stage] - seconds
            rows.append(
                {"mistake": case.mistake, "says": line, "seconds": round(seconds, 1), "stage": case.stage}
                | {"later": round(later[case.stage], 1), "saved": round(saved, 1)}
            )
            print(f"{case.mistake}: {seconds:.1f} s, {case.stage} after {later[case.stage]:.1f} s", flush=True)
    write(
        "early",
        {"whole_run_seconds": round(spent(arguments.run, BEFORE["kaggle"]), 1), "cases": rows},
        arguments.output,
    )
    cells = [[f"{each[key]:.0f}" if isinstance(each[key], float) else each[key] for key in rows[0]] for each in rows]
    head = ["mistake", "what `make check` says", "after, s", "else found by", "after, s", "saved, s"]
    (arguments.output / "early.md").write_text(markdown(head, cells), encoding="utf-8")


if __name__ == "__main__":
    with stage("early", keep_seconds=False):
        main()
