"""Does CV foretell the leaderboard? A history of submissions, played through with the real tools.

python -m benchmarks.build.history                                    # on a generated competition
python -m benchmarks.build.history --data ../shared/data/arena_real   # on real votes in the LMSYS schema
# minutes: not measured; writes benchmarks/results/history-<name of the folder>.json, and its table as .md

Before anything else runs, one fifth of the labelled rows is set aside, by first prompt: the hidden test set, one half
public, one half private. Then a clone of this checkout goes through several commits as a user would: other params,
`dvc repro`, `git commit`, publish, submit, sync_lb. The Kaggle at the other end is that of the tests; it unpacks what
the real CLI uploaded, runs the pushed kernel on it, and scores its submission. The table is that of `make compare`,
with what DVC's own commands say of the first two.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from benchmarks.build.played_kernel import PlayedKernels
from benchmarks.process import clone, run
from benchmarks.result import command_line, write
from pipeline.data import demo
from pipeline.errors import PodiumError
from pipeline.files import write_text
from pipeline.stage import stage
from tests.helpers.kaggle_server import USER, KaggleServer

SHARE, VISIBLE, SEED = 0.2, 20, 7
DEMO_ROWS = 6000
LABELS = ["winner_model_a", "winner_model_b", "winner_tie"]

SHAPE: dict[str, Any] = {"kind": "tabular", "backbone": "none", "model": "lightgbm", "boosting": {"max_trees": 60}}
LINEAR: dict[str, Any] = {
    "kind": "tabular",
    "backbone": "none",
    "model": "logistic",
    "words": {"longest": 1, "max_features": 3000},
}
BLEND: dict[str, Any] = {
    "kind": "tabular",
    "backbone": "none",
    "model": "lightgbm",
    "words": {"longest": 1, "max_features": 20000},
    "components": 32,
}

COMMITS: list[tuple[str, dict[str, Any]]] = [
    (
        "text features under LightGBM, 60 trees",
        {"members": {"shape": SHAPE}, "backbones": {"none": {"source": "none"}}, "threads": 2},
    ),
    ("more trees", {"members.shape.boosting.max_trees": 600}),
    ("a linear member with words", {"members.linear": LINEAR}),
    ("pairs of words, a wider vocabulary", {"members.linear.words": {"longest": 2, "max_features": 30000}}),
    ("a blend of both", {"members.blend": BLEND}),
    ("a much weaker penalty on the words", {"members.linear.logistic": {"c": 8.0}}),
    (
        "and back, slower learning",
        {"members.linear.logistic": {"c": 0.3}, "members.blend.boosting.learning_rate": 0.03},
    ),
]
"""What each commit says, and the params that it changes (dotted key -> value)."""


def set_aside(data: Path, folder: Path) -> dict[str, int]:
    """Writes folder/competition (what a competitor gets) and folder/hidden, with its solution; returns row counts."""
    rows = pl.read_csv(data / "train.csv", infer_schema=False)
    first = pl.col("prompt").str.json_decode(pl.List(pl.String)).list.first().fill_null("")
    rows = rows.with_columns(first.str.to_lowercase().str.replace_all(r"\s+", " ").str.slice(0, 400).alias("group"))
    groups = rows["group"].unique().sort()
    drawn = np.random.default_rng(SEED).permutation(len(groups))
    chosen = groups.gather(drawn[: int(SHARE * len(groups))]).implode()
    hidden, train = rows.filter(pl.col("group").is_in(chosen)), rows.filter(~pl.col("group").is_in(chosen))
    test = hidden.select("id", "prompt", "response_a", "response_b")
    for place, part in (("competition", test.head(VISIBLE)), ("hidden", test)):
        (folder / place).mkdir()
        part.write_csv(folder / place / "test.csv")
        sample = part.select("id", *(pl.lit(1 / 3).alias(name) for name in LABELS))
        sample.write_csv(folder / place / "sample_submission.csv")
    train.drop("group").write_csv(folder / "competition" / "train.csv")
    public = np.random.default_rng(SEED + 1).random(len(hidden)) < 0.5
    solution = hidden.select("id", *LABELS).with_columns(pl.Series("public", public))
    solution.write_csv(folder / "hidden" / "solution.csv")
    return {"train": len(train), "public": int(public.sum()), "private": int((~public).sum())}


def score(submission: bytes, solution: Path) -> tuple[float, float]:
    """Returns the log loss of a submission on the public and on the private half."""
    told = pl.read_csv(io.BytesIO(submission), schema_overrides={"id": pl.String})
    truth = pl.read_csv(solution, schema_overrides={"id": pl.String})
    both = truth.join(told, on="id", how="left", suffix="_told", maintain_order="left")
    labels = both.select(LABELS).to_numpy().argmax(axis=1)
    told_probabilities = both.select(f"{name}_told" for name in LABELS).to_numpy()
    losses = -np.log(np.clip(told_probabilities[np.arange(len(labels)), labels], 1e-15, 1.0))
    public = both["public"].to_numpy()
    return float(losses[public].mean()), float(losses[~public].mean())


def change(params: Path, edits: dict[str, Any]) -> None:
    """Sets dotted keys of params.yaml."""
    found = yaml.safe_load(params.read_text())
    for key, value in edits.items():
        *path, last = key.split(".")
        place = found
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    params.write_text(yaml.safe_dump(found, sort_keys=False))


def play(data: Path, folder: Path) -> dict[str, Any]:
    """Plays the whole history in `folder`; returns what the result file keeps, and its table as `text`."""
    rows = set_aside(data, folder)
    repository = clone(folder / "podium")
    competition = str(folder / "competition")
    change(
        repository / "params.yaml", {"data.path": competition, "package.owner": USER, "package.slug": "podium-history"}
    )
    with KaggleServer(folder) as server:
        kernels = PlayedKernels(server, folder)
        server.run = kernels.rehearse

        def judge(body: dict[str, Any]) -> dict[str, Any]:
            public, private = score(kernels.rerun(body, folder / "hidden"), folder / "hidden" / "solution.csv")
            return {"status": "COMPLETE", "publicScore": f"{public:.5f}", "privateScore": f"{private:.5f}"}

        server.score = judge
        names = {f"GIT_{who}_{what}": "player@podium" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        guarded = names | server.environment
        for number, (message, edits) in enumerate(COMMITS, start=1):
            print(f"{number}/{len(COMMITS)}: {message}", flush=True)
            change(repository / "params.yaml", edits)
            run(["dvc", "repro", "rehearse"], repository, names)
            run(["git", "add", "-A"], repository, names)
            run(["git", "commit", "-qm", message], repository, names)
            for name, *options in (["publish", "--poll", "1"], ["submit"], ["sync_lb"]):
                told = run([sys.executable, "-m", f"stages.{name}", *options], repository, guarded).output
            print(told.strip().splitlines()[0], flush=True)
        shown = run([sys.executable, "-m", "stages.compare", "--markdown"], repository, guarded).output
        run(["dvc", "repro", "report"], repository)
        assert server.contacted() == [], server.contacted()
    ledger = pl.read_csv(repository / "ledger.csv")
    shutil.copy(repository / "reports" / "index.html", folder / "report.html")
    keys = ("submission", "cv", "cv_error", "public", "private", "runtime_seconds", "changes")
    return {
        "rows": rows,
        "submissions": ledger.select(keys).to_dicts(),
        "said": shown.strip().splitlines()[-2:],
        "text": "\n".join([shown.rstrip(), *dvc_alone(repository)]) + "\n",
    }


def dvc_alone(repository: Path) -> list[str]:
    """Returns what `dvc params diff` and `dvc metrics diff` say of the first two submissions, as Markdown lines."""
    params, metrics = ["dvc", "params", "diff", "lb-1", "lb-2"], ["dvc", "metrics", "diff", "lb-1", "lb-2"]
    lines = ["", f"`{' '.join(params)}`", "", *run([*params, "--md"], repository).output.strip().splitlines()]
    head, rule, *rows = run([*metrics, "--md"], repository).output.strip().splitlines()
    of_note = sorted(row for row in rows if row.split("|")[2].strip() in ("public", "private", "stack.score"))
    return [*lines, "", f"`{' '.join(metrics)}`, its lines on CV and LB", "", head, rule, *of_note]


def main(data: Path | None, keep: Path | None, output: Path) -> None:
    if data and not (data / "train.csv").is_file():
        raise PodiumError(f"{data}: expected train.csv; name another folder with --data")
    if keep and keep.exists():
        raise PodiumError(f"{keep}: expected a new folder, found this one; name another with --keep")
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep.resolve() if keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if data is None:
            data = folder / "demo"
            demo.write(demo.generate(DEMO_ROWS, VISIBLE, SEED), data)
        found = play(data, folder)
    text = found.pop("text")
    write(f"history-{data.name}", found, output, data=data.name)
    write_text(output / f"history-{data.name}.md", text)
    print(text)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--data", type=Path, help="folder with train.csv in the LMSYS schema; without it, the demo")
    parser.add_argument("--keep", type=Path, help="a new folder for the played repository, kept for a look")
    given = parser.parse_args()
    with stage("history", keep_seconds=False):
        main(given.data, given.keep, given.output)
