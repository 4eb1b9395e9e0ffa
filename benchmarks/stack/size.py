"""What does the `stack` stage take, time and memory, with as many rows as the real competition and twelve members?

python -m benchmarks.stack.size [--rows 57000] [--members 12]
# 7 minutes on two cores for the stage, making the rows not counted; writes benchmarks/results/stack_size.json

The rows are generated; the members' answers are their true probabilities with noise of each member's own, and the
candidates are all five. The stage runs as the pipeline runs it: its own process, files in, files out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from benchmarks.process import run
from benchmarks.result import ROOT, command_line, write
from pipeline.artifacts import HOLDOUT
from pipeline.competitions.family import Categorical
from pipeline.competitions.registry import load_competition
from pipeline.data import demo
from pipeline.data.folds import assign_folds, group_keys
from pipeline.files import write_json, write_parquet
from pipeline.ingest.prepare import prepare

GOAL = {"seconds": 480, "peak_mb": 3000}
THREADS, FOLDS = 2, 5

CLASSES = Categorical(3)


def write_run(folder: Path, count: int, members: int) -> None:
    """Writes params.yaml and the files that the stack stage reads."""
    competition = load_competition("lmsys")
    demo.write(demo.generate(count, 1, 0), folder / "data")
    artifacts = folder / "artifacts"
    prepare(folder / "data", competition, artifacts / "competition")
    train = pl.read_parquet(artifacts / "competition" / "train.parquet")
    folds = assign_folds(group_keys(train, competition.kind), train["label"].to_numpy(), FOLDS, 0.1, 0)
    truth = pl.read_parquet(artifacts / "competition" / "truth.parquet").select(competition.outputs).to_numpy()
    rows = train.select("id", pl.Series("fold", folds, dtype=pl.Int8), "label")
    inside, held = rows.filter(folds != HOLDOUT), rows.filter(folds == HOLDOUT).drop("fold")
    models = pl.DataFrame({"model": range(FOLDS)}, schema={"model": pl.Int8})
    held = held.join(models, how="cross", maintain_order="left_right")
    logits, rng = CLASSES.link(truth), np.random.default_rng(0)
    for name, frame, true in (
        ("oof", inside, logits[folds != HOLDOUT]),
        ("holdout", held, np.repeat(logits[folds == HOLDOUT], FOLDS, axis=0)),
    ):
        for m in range(members):
            answers = CLASSES.means((0.9 - 0.05 * m) * true + (0.5 + 0.08 * m) * rng.normal(size=true.shape))
            frame = frame.with_columns(pl.Series(f"m{m}/{c}", answers[:, i]) for i, c in enumerate(competition.outputs))
        write_parquet(frame, artifacts / "oof" / f"{name}.parquet")
    for m, fold in product(range(members), range(FOLDS)):
        write_json(artifacts / "receipts" / f"m{m}-fold{fold}.json", {"training": None})
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    member = {"kind": "tabular", "backbone": "none", "model": "logistic"}
    params["members"] = {f"m{m}": member for m in range(members)}
    params["folds"]["ids"], params["threads"] = list(range(FOLDS)), THREADS
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def measure(folder: Path) -> dict[str, float | str]:
    """Runs the stage in `folder`; returns wall and CPU seconds, peak MB, the chosen stacker and its scores."""
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")}
    used = run([sys.executable, "-m", "stages.stack"], folder, threads | {"PYTHONPATH": str(ROOT)})
    stack = json.loads((folder / "metrics" / "cv.json").read_text())["stack"]
    scores = {"chosen": stack["chosen"], "nested": stack["score"], "holdout": stack["holdout"]}
    return {"seconds": used.seconds, "cpu_seconds": used.cpu_seconds, "peak_mb": used.peak_mb} | scores


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=57_000)
    parser.add_argument("--members", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        # In a process of its own: a child's peak counts from what its parent held when it was started.
        maker = get_context("spawn").Process(target=write_run, args=(Path(name), arguments.rows, arguments.members))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(f"the rows could not be written: exit code {maker.exitcode}")
        found = measure(Path(name))
    print(json.dumps(found | {"goal": GOAL}, indent=2))
    settings = {"rows": arguments.rows, "members": arguments.members, "classes": 3, "threads": THREADS}
    write("stack_size", settings | found, arguments.output, goal=GOAL)


if __name__ == "__main__":
    main()
