"""What does a network of half the depth gain from a teacher, and from rows without labels that it answers?

python -m benchmarks.stack.teachers [--seeds 5]
# 13 minutes a seed, beside other work; needs ../shared/data/cs224n
# writes teachers.json and teachers.md in benchmarks/results/

MiniLM (6 layers, pretrained) learns 1,500 film sentences of five degrees and is scored on 1,000 others. The student has
every second of its layers. It learns the same rows alone, with the teacher's answers beside the labels, and with those
and 1,500 further sentences whose labels nobody has looked at. Settings were fixed before any run; each seed is
another head, order and dropout of all networks, on the same rows. Finished seeds stay in work/teachers/.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.build.pretrained import minilm
from benchmarks.result import ROOT, command_line, markdown, write
from pipeline.artifacts import FACTS, POINTER, Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.data.near_duplicates import near_duplicates
from pipeline.data.split import split_rows
from pipeline.files import read_json, sha256_file, write_json, write_parquet
from pipeline.ingest.prepare import read_train
from pipeline.members.beside.teach import teach
from pipeline.members.context import FromElsewhere, Start
from pipeline.members.fold import train_fold
from pipeline.models.backbones.obtain import obtain
from pipeline.settings.backbones import Folder
from pipeline.stage import stage

DATA = ROOT.parent / "shared" / "data" / "cs224n"
WORK = Path("work/teachers")
LEARNED, SCORED, UNLABELLED, DRAW = 1500, 1000, 1500, 11
NETWORK: dict[str, Any] = {
    "kind": "encoder",
    "max_tokens": 96,
    "training": {
        "epochs": 3,
        "schedule": {"rate": 1.0e-4},
        "head_rate": 1.0e-3,
        "batches": {"rows_per_step": 32, "tokens_per_batch": 4096},
        "precision": "fp32",
    },
    "inference": {"tokens_per_batch": 4096},
}
TAUGHT = {"members": ["teacher"], "weight": 1.0, "temperature": 2.0}
ARMS: dict[str, dict[str, Any]] = {
    "teacher": {"backbone": "whole"},
    "alone": {"backbone": "half"},
    "taught": {"backbone": "half", "teachers": TAUGHT},
    "taught, more rows": {"backbone": "half", "teachers": TAUGHT, "extra": ["more"]},
}


def halved(source: Path, target: Path) -> None:
    """Writes MiniLM with its first, third and fifth layer alone, as DistilBERT's authors began (arXiv 1910.01108)."""
    from transformers import AutoModel

    network = AutoModel.from_pretrained(source)
    layers = network.encoder.layer
    network.encoder.layer = torch.nn.ModuleList(list(layers)[::2])
    network.config.num_hidden_layers = len(network.encoder.layer)
    network.save_pretrained(target)
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copyfile(file, target / file.name)


def lay_out(artifacts: Artifacts) -> Competition:
    """Writes rows, folds, further rows and both backbones below `artifacts`."""
    rows, competition = read_train(DATA / "ids-sst-train.csv", load_competition("sst"))
    rows = rows[np.random.default_rng(DRAW).permutation(len(rows))]
    used, more = rows.head(LEARNED + SCORED), rows[LEARNED + SCORED :].head(UNLABELLED)
    write_json(artifacts.competition_file, {"competition": asdict(competition)})
    write_parquet(used, artifacts.train_file)
    folds = np.repeat([1, 0], [LEARNED, SCORED])
    write_parquet(used.select("id").with_columns(pl.Series("fold", folds, dtype=pl.Int8)), artifacts.folds_file)
    near = near_duplicates(more, used, folds.tolist(), competition.kind)
    apart = pl.Series("apart", [sorted(each) for each in near], dtype=pl.List(pl.Int8))
    write_parquet(more.drop("label").with_columns(apart), artifacts.extra("more"))
    with tempfile.TemporaryDirectory() as temporary:
        half = Path(temporary) / "half"
        half.mkdir()
        halved(minilm(), half)
        for name, folder in (("whole", minilm()), ("half", half)):
            target = artifacts.backbone(name)
            target.mkdir(parents=True)
            obtain(name, Folder(source="path", path=str(folder)), list, target)
            write_json(artifacts.pretrained(name) / POINTER, read_json(target / FACTS))
    return competition


def one_seed(seed: int, artifacts: Artifacts, competition: Competition) -> dict[str, Any]:
    """Returns arm -> the log losses of the scored rows, and the seconds of training."""
    rows = artifacts.train().collect()
    split, found = split_rows(rows, artifacts.folds(), 0), {}
    more = FromElsewhere("none", 1.0, 0.0, sha256_file(artifacts.extra("more")))
    starts = {}
    for arm, settings in ARMS.items():
        member = member_settings(NETWORK | settings)
        training = replace(member.training, seeds=replace(member.training.seeds, head=seed, order=seed, dropout=seed))  # type: ignore[attr-defined]
        member = replace(member, training=training)  # type: ignore[call-arg]
        facts = artifacts.backbone_facts(member.backbone)
        extra = {"more": more} if member.extra else {}
        start = Start(arm, member, competition, 1, backbone=facts["sha256"], max_attempts=2, extra=extra)
        starts[arm] = start
        write_json(artifacts.start(arm), asdict(start))
        began = time.monotonic()
        with redirect_stdout(io.StringIO()):
            if "teachers" in settings:
                teach(start, starts["teacher"], 0, split.train, artifacts)
            train_fold(split, start, 0, artifacts)
        said = pl.read_parquet(artifacts.oof_part(arm, 0)).select(competition.outputs).to_numpy()
        losses = competition.family.losses(split.fold["label"].to_numpy(), said)
        right = float((said.argmax(axis=1) == split.fold["label"].to_numpy()).mean())
        found[arm] = {"losses": losses.round(5).tolist(), "accuracy": right, "seconds": time.monotonic() - began}
        print(f"seed {seed}: {arm}: log loss {losses.mean():.4f}, accuracy {right:.3f}", flush=True)
    return found


def summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns each arm's mean log loss and accuracy, and what it gains over `alone` with a 95 % interval.

    The interval is of both draws, of seeds and of scored rows: a bootstrap of the mean of paired differences.
    """
    losses = {arm: np.array([seed[arm]["losses"] for seed in seeds]) for arm in ARMS}
    draw, table = np.random.default_rng(0), {}
    for arm, each in losses.items():
        gain = losses["alone"] - each
        drawn = [
            gain[draw.integers(len(gain), size=len(gain))][:, draw.integers(gain.shape[1], size=gain.shape[1])].mean()
            for _ in range(2000)
        ]
        table[arm] = {
            "log_loss": float(each.mean()),
            "accuracy": float(np.mean([seed[arm]["accuracy"] for seed in seeds])),
            "gain": float(gain.mean()),
            "interval": [float(bound) for bound in np.quantile(drawn, [0.025, 0.975])],
            "by_seed": [float(mean) for mean in gain.mean(axis=1)],
            "seconds": float(np.mean([seed[arm]["seconds"] for seed in seeds])),
        }
    return table


def main(seeds: int, output: Path) -> None:
    done: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        artifacts, competition = Artifacts(Path(temporary)), None
        for seed in range(seeds):
            file = WORK / f"seed{seed}.json"
            if not file.exists():
                competition = competition or lay_out(artifacts)
                write_json(file, one_seed(seed, artifacts, competition))
            done[seed] = read_json(file)
    table = summary(list(done.values()))
    write("teachers", {"arms": table}, output, seeds=seeds, learned=LEARNED, scored=SCORED, unlabelled=UNLABELLED)
    lines = [
        (
            arm,
            f"{each['log_loss']:.4f}",
            f"{each['accuracy']:.3f}",
            f"{each['gain']:+.4f}",
            " to ".join(f"{bound:+.4f}" for bound in each["interval"]),
        )
        for arm, each in table.items()
    ]
    text = markdown(["arm", "log loss", "accuracy", "gain over alone", "95 %"], lines)
    (output / "teachers.md").write_text(f"{seeds} seeds, {LEARNED} rows learned, {SCORED} scored.\n\n{text}\n")
    print(text)


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    with stage("teachers", keep_seconds=False):
        main(options.seeds, options.output)
