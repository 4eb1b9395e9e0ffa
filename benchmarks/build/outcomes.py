"""What does Podium claim on real competitions of each kind, and what does it get? A fifth is set aside before anything.

python -m benchmarks.build.outcomes [--only level_cefrsp ...] [--networks small]
make real, or python -m benchmarks.build.outcomes --networks real (or minilm) [--only sst ...] [--rows 2000]
# needs ../shared/data; writes outcomes.json and outcomes.md, or real.json and real.md, in benchmarks/results/

Each set goes through the whole graph in a clone, from CSV to the rehearsed kernel, whose submission is then scored on
the fifth by scikit-learn and SciPy. Beside the tabular members of the preset `cpu` come, where that is asked for, its
small networks; or, beside those of `short`, which suit sentences, real ones with their pretrained weights
(pretrained.py): MiniLM, and one fold of SmolLM2 on a 4-bit base, which answers in tokens where the outcome has some.
What is scored in accuracy otherwise is scored in log loss then, for members differ more in it.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, roc_auc_score

from benchmarks.build.pretrained import minilm, smollm2
from benchmarks.process import clone, run
from benchmarks.result import ROOT, command_line, markdown, write
from pipeline.competitions.registry import load_competition
from pipeline.config import load_params
from pipeline.data.folds import assign_folds, group_keys
from pipeline.ingest.prepare import prepare
from pipeline.validation import read_yaml

SHARED = ROOT.parent / "shared" / "data"
SEED, DRAWS = 11, 300
BATCHES = {"rows_per_step": 32, "tokens_per_batch": 4096}
REAL: dict[str, dict[str, Any]] = {
    "minilm": {
        **{"kind": "encoder", "backbone": "minilm", "max_tokens": 160, "head": "equivariant"},
        "training": {"epochs": 2, "schedule": {"rate": 1.0e-4}, "head_rate": 1.0e-3, "batches": BATCHES},
        "inference": {"tokens_per_batch": 4096},
    },
    "smollm2": {
        **{"kind": "decoder", "backbone": "smollm2", "max_tokens": 256, "head": "tokens", "folds": [0]},
        "training": {"epochs": 1, "schedule": {"rate": 3.0e-4}, "batches": BATCHES | {"rows_per_step": 16}},
        "inference": {"precision": "nf4", "tokens_per_batch": 4096},
    },
}
"""Chosen before anything was run; nothing was tuned."""


def ranked(truth: pl.DataFrame, said: pl.DataFrame) -> float:
    """Mean over the rows of 1 / place of the right answer among the three that were named."""
    named = [each.split() for each in said.to_series(1)]
    pairs = zip(truth.to_series(1), named, strict=True)
    return float(np.mean([1 / (each.index(right) + 1) if right in each else 0.0 for right, each in pairs]))


def nats(truth: pl.DataFrame, said: pl.DataFrame) -> float:
    """Log loss of the classes, which stand in one column, or in one of 0 and 1 each."""
    right = numbers(truth).argmax(axis=1)
    if truth.width == 2:
        right = np.array([said.columns[1:].index(each) for each in truth.to_series(1)])
    return float(log_loss(right, numbers(said), labels=range(said.width - 1)))


def numbers(frame: pl.DataFrame) -> np.ndarray:
    return frame[:, 1:].cast(pl.Float64).to_numpy()


SCORERS: dict[str, Callable[[pl.DataFrame, pl.DataFrame], float]] = {
    "accuracy": lambda t, s: float(accuracy_score(numbers(t).astype(int), numbers(s).astype(int))),
    "log_loss": nats,
    "map@3": ranked,
    "mean_auc": lambda t, s: float(roc_auc_score(numbers(t), numbers(s), average="macro")),
    "qwk": lambda t, s: float(cohen_kappa_score(*(numbers(e)[:, 0].astype(int) for e in (t, s)), weights="quadratic")),
    "rmse": lambda t, s: float(np.sqrt(((numbers(t) - numbers(s)) ** 2).mean())),
    "pearson": lambda t, s: float(pearsonr(numbers(t)[:, 0], numbers(s)[:, 0])[0]),
}


@dataclass(frozen=True)
class DataSet:
    """One real set: its labelled file, and what its competition's YAML file says but for the files."""

    file: str
    says: dict[str, Any]
    separator: str = ","


TEXT = {"task": "text", "id": "id", "submission": "file"}
XED = ["anger", "anticipation", "disgust", "fear", "joy", "sadness", "surprise", "trust"]
SETS = {
    "sst": DataSet("cs224n/ids-sst-train.csv", {"shipped": "sst"}, "\t"),
    "quora": DataSet("cs224n/quora-subset-train.csv", {"shipped": "quora"}, "\t"),
    "sts": DataSet("cs224n/sts-train.csv", {"shipped": "sts"}, "\t"),
    "arena": DataSet("arena_real/train.csv", {"shipped": "lmsys"}),
    "science_exam": DataSet("science_exam/extra_train_6000.csv", {"shipped": "llm-science-exam"}),
    "choice_codah": DataSet(
        "choice_codah/train.csv",
        TEXT
        | {"task": "choices", "texts": {"question": "question", "A": "A", "B": "B", "C": "C", "D": "D"}}
        | {"options": ["A", "B", "C", "D"], "label": {"column": "answer"}}
        | {"metric": "map@3", "answers": {"answer": "top 3"}},
    ),
    "emotions_xed": DataSet(
        "emotions_xed/train.csv",
        TEXT | {"texts": {"text": "text"}, "outcome": "labels", "label": {"columns": XED}, "metric": "mean_auc"},
    ),
    "humour_humicroedit": DataSet(
        "humour_humicroedit/train.csv",
        TEXT | {"texts": {"text": "text"}, "outcome": "numbers", "label": {"columns": ["target"]}, "metric": "rmse"},
    ),
    "level_cefrsp": DataSet(
        "level_cefrsp/train.csv",
        TEXT
        | {"texts": {"text": "full_text"}, "outcome": "ordered", "metric": "qwk"}
        | {"label": {"column": "score", "low": 1, "high": 6}},
    ),
    "pairs_medquestions": DataSet(
        "pairs_medquestions/train.csv",
        TEXT
        | {"task": "pair", "symmetric": True, "texts": {"a": "text_a", "b": "text_b"}, "metric": "accuracy"}
        | {"classes": [0, 1], "label": {"column": "label"}, "answers": {"label": "label"}},
    ),
}


def main(names: list[str], networks: str, rows: int | None, output: Path) -> None:
    result = "real" if networks in ("minilm", "real") else "outcomes"
    file = output / f"{result}.json"
    table = json.loads(file.read_text())["sets"] if file.exists() else {}
    for name in names:
        if not (SHARED / SETS[name].file).is_file():
            print(f"{SHARED / SETS[name].file} is not here: {name} is not measured")
            continue
        with tempfile.TemporaryDirectory() as folder:
            place = name + {"": "", "small": " with small networks"}.get(networks, f" with {networks}")
            place += f", {rows} rows" if rows else ""
            table[place] = measured(name, networks, rows, Path(folder))
        write(result, {"sets": table}, output)
        (output / f"{result}.md").write_text(f"{told(table)}\n\n{members_told(table)}\n", encoding="utf-8")
    print(told(table), members_told(table), sep="\n\n")


def told(table: dict[str, dict[str, Any]]) -> str:
    """Returns the table for people."""
    columns = (
        "set",
        "rows",
        "metric",
        "constant",
        "best member",
        "stack, nested",
        "holdout",
        "set-aside fifth",
        "claimed - true",
    )
    rows = [
        [
            *(name, each["rows"], each["metric"]),
            *(f"{each[key]:.4f}" for key in ("constant", "best_member", "nested", "holdout", "true")),
            f"{each['nested'] - each['true']:+.4f} ± {each['error']:.4f}",
        ]
        for name, each in table.items()
    ]
    return markdown(columns, rows)


def members_told(table: dict[str, dict[str, Any]]) -> str:
    """Returns what each member got and took, and what the stack loses without it, with its 95 % interval."""
    columns = (
        "set",
        "metric",
        "member",
        "rows",
        "score",
        "holdout",
        "the stack's loss without it",
        "seconds of training",
    )
    rows = []
    for name, each in table.items():
        for member, its in each["members"].items() if "marginal" in each else ():
            without = each["marginal"].get(member)
            interval = "dropped"
            if without:
                interval = f"{without['mean']:+.4f} [{without['low']:+.4f}, {without['high']:+.4f}]"
            scores = (f"{its[key]:.4f}" for key in ("score", "holdout"))
            rows.append([name, each["metric"], member, its["rows"], *scores, interval, round(its["seconds"])])
    return markdown(columns, rows)


def measured(name: str, networks: str, rows: int | None, folder: Path) -> dict[str, Any]:
    """Returns what is claimed of a set, and what its kernel gets on the rows that were set aside first.

    `rows` draws so many of them before that; None takes all.
    """
    competition, truth = laid_out(name, networks in ("minilm", "real"), rows, folder)
    place = clone(folder / "clone")
    write_params(place, folder, networks)
    used = run(["dvc", "repro"], place)
    cv = json.loads((place / "metrics" / "cv.json").read_text())
    said = pl.read_csv(place / "artifacts" / "rehearsal" / "submission.csv", infer_schema=False)
    truth = said.select(competition["id"]).join(truth, on=competition["id"], how="left", maintain_order="left")
    score, rng = SCORERS[competition["metric"]], np.random.default_rng(SEED)
    draws = [score(truth[chosen], said[chosen]) for chosen in rng.integers(len(said), size=(DRAWS, len(said)))]
    return {
        "rows": cv["rows"],
        "metric": competition["metric"],
        "constant": cv["prior"],
        "members": {
            member: {key: each[key] for key in ("score", "holdout", "rows", "seconds")}
            for member, each in cv["members"].items()
        },
        "marginal": {
            each["member"]: each["left_out"]
            for each in json.loads((place / "artifacts" / "diagnostics.json").read_text())["marginal"]
        },
        "best_member": cv["members"][cv["stack"]["best_member"]]["score"],
        "chosen": cv["stack"]["chosen"],
        "nested": cv["stack"]["score"],
        "holdout": cv["stack"]["holdout"],
        "true": score(truth, said),
        "error": math.hypot(cv["stack"]["standard_error"], float(np.std(draws))),
        "probe": json.loads((place / "metrics" / "probe.json").read_text()),
        "seconds": round(used.seconds),
        "peak_mb": used.peak_mb,
    }


def laid_out(name: str, in_nats: bool, rows: int | None, folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """Writes data/ and competition.yaml below `folder`; returns the YAML's contents and all labels.

    Whole groups are set aside, so that the fifth is as new to the models as a hidden test set.
    """
    import yaml

    given = SETS[name].says
    says = read_yaml(ROOT / "pipeline" / "competitions" / f"{given['shipped']}.yaml") if "shipped" in given else given
    says = {"name": name.replace("_", "-"), **says, "separator": ",", "ignored": ["*"]}
    says |= {"train": "train.csv", "test": "test.csv"}
    if in_nats and says["metric"] == "accuracy":
        says["metric"] = "log_loss"
        del says["answers"]
    if says["metric"] == "map@3":
        says["answers"] = {says["label"]["column"]: "top 3"}
    frame = pl.read_csv(SHARED / SETS[name].file, separator=SETS[name].separator, infer_schema=False)
    frame = frame.unique(says["id"], keep="first", maintain_order=True).drop_nulls(labels := label_columns(says))
    if rows is not None:
        frame = frame.sample(min(rows, len(frame)), seed=SEED)
    data = folder / "data"
    data.mkdir()
    (folder / "competition.yaml").write_text(yaml.safe_dump(says, sort_keys=False), encoding="utf-8")
    competition = load_competition(str(folder / "competition.yaml"))

    def lay(train: pl.DataFrame, test: pl.DataFrame) -> None:
        train.write_csv(data / "train.csv")
        test.drop(labels).write_csv(data / "test.csv")
        first = train[0].select(labels).row(0)
        columns = [str(each) for each in says.get("answers") or says.get("classes") or labels]
        if len(columns) != len(first):  # a probability per class
            first = (str(1 / len(columns)),) * len(columns)
        cells = {column: pl.lit(value) for column, value in zip(columns, first, strict=True)}
        test.select(says["id"]).with_columns(**cells).write_csv(data / "sample_submission.csv")

    lay(frame, frame.head(2).with_columns(pl.concat_str(pl.lit("new "), says["id"]).alias(says["id"])))
    prepare(data, competition, folder / "whole")
    rows = pl.read_parquet(folder / "whole" / "train.parquet")
    groups = group_keys(rows, competition.kind)
    aside = assign_folds(groups, np.zeros(len(rows), dtype=np.int64), 5, 0.0, SEED) == 0
    lay(frame.filter(~pl.Series(aside)), frame.filter(pl.Series(aside)))
    return says, frame.select(says["id"], *labels)


def label_columns(says: dict[str, Any]) -> list[str]:
    """Returns the columns of train.csv that hold the answer."""
    label = says["label"]
    return label.get("columns") or [label["column"]]


def write_params(place: Path, folder: Path, networks: str) -> None:
    """Lays the preset `cpu` and the set over the clone's params.yaml, with the networks that are asked for."""
    from ruamel.yaml import YAML

    preset = "short" if networks in ("minilm", "real") else "cpu"
    run([sys.executable, "-m", "pipeline.preset", preset, str(folder / "data")], place)
    editor = YAML()
    params = editor.load(place / "params.yaml")
    params["data"]["competition"] = str(folder / "competition.yaml")
    if networks != "small":
        params["members"] = {name: each for name, each in params["members"].items() if each["kind"] == "tabular"}
        params["backbones"] = {"none": {"source": "none"}}
    if networks in ("minilm", "real"):
        fresh = load_competition(str(folder / "competition.yaml")).outcome == "numbers"
        wanted = {"minilm": minilm} | ({"smollm2": smollm2} if networks == "real" else {})
        for member, open_folder in wanted.items():
            params["backbones"][member] = {"source": "path", "path": str(open_folder())}
            params["members"][member] = REAL[member] | ({"head": "plain"} if fresh and member == "smollm2" else {})
    editor.dump(params, place / "params.yaml")
    load_params(place / "params.yaml")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(SETS), default=list(SETS), help="the other sets stay as they are"
    )
    parser.add_argument(
        "--networks", choices=["small", "minilm", "real"], default="", help="beside the tabular members"
    )
    parser.add_argument("--rows", type=int, help="draw so many rows of each set")
    arguments = parser.parse_args()
    main(arguments.only, arguments.networks, arguments.rows, arguments.output)
