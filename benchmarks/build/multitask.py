"""One network for sentiment, paraphrase and similarity: what does it get, beside one network for each?

python -m benchmarks.build.multitask [--seeds 2]
# some 3 hours a seed on one core; needs ../shared/data/cs224n
# writes multitask.json and multitask.md in benchmarks/results/

MiniLM (22 million weights, pretrained) learns the training files of the CS224N handout and is scored on its development
files, as in the handout's own table. One network learns all three, a step of each in turn, and keeps all heads; three
more learn one each, with the same settings. The settings are those of outcomes.py with three epochs, fixed before any
run; nothing was tuned, and no development row chose anything. Rows of one task with a text of another's development
rows are left out. Finished parts stay in work/multitask/.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from benchmarks.build.outcomes import REAL, SHARED
from benchmarks.build.pretrained import minilm
from benchmarks.result import command_line, markdown, write
from pipeline.artifacts import FACTS, POINTER, Artifacts
from pipeline.competitions.decision import PLAIN
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import member_settings
from pipeline.data.split import Beside, Split
from pipeline.ensemble.scoring import Answers, score
from pipeline.files import read_json, write_json
from pipeline.inference.predict import predict_member
from pipeline.ingest.prepare import read_train
from pipeline.members.beside.auxiliary import without_texts_of
from pipeline.members.context import Run, Start
from pipeline.members.encoder import trainable_backbone
from pipeline.members.finetune import open_run, train_network
from pipeline.models.backbones.obtain import obtain
from pipeline.models.network import encoder_network
from pipeline.models.saved_network import save_encoder
from pipeline.settings.backbones import Folder
from pipeline.settings.encoder import Encoder
from pipeline.stage import stage
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.objectives.multitask import with_auxiliary

DATA, WORK = SHARED / "cs224n", Path("work/multitask")
TASKS = {"sst": "ids-sst", "quora": "quora-subset", "sts": "sts"}
NAMES = {"sst": "sentiment, accuracy", "quora": "paraphrase, accuracy", "sts": "similarity, Pearson"}
PUBLISHED = {"sst": 0.506, "quora": 0.892, "sts": 0.869}
"""A published BERT-base (110 million weights, SMART, nine epochs) on the handout's development sets; it learned the
handout's whole training file of questions, which is not here."""
EPOCHS = 3

Rows = tuple[Competition, pl.DataFrame, pl.DataFrame]
"""A task, what is learned, and the development rows."""


def read_tasks() -> dict[str, Rows]:
    found = {}
    for name, file in TASKS.items():
        rows, competition = read_train(DATA / f"{file}-train.csv", load_competition(name))
        found[name] = competition, rows, read_train(DATA / f"{file}-dev.csv", competition)[0]
    return found


def lay_out(artifacts: Artifacts) -> None:
    """Writes the backbone below `artifacts`."""
    target = artifacts.backbone("minilm")
    target.mkdir(parents=True)
    obtain("minilm", Folder(source="path", path=str(minilm())), list, target)
    write_json(artifacts.pretrained("minilm") / POINTER, read_json(target / FACTS))


def trained(learned: list[str], tasks: dict[str, Rows], seed: int, artifacts: Artifacts) -> dict[str, Any]:
    """Returns the development scores of one network that learned `learned`, and the guard's record of its training."""
    first, *others = learned
    beside = {"tasks": {name: {"path": f"external/{name}", "competition": name} for name in others}}
    asked = REAL["minilm"] | {"auxiliary": beside if others else None}
    settings = member_settings(asked)
    assert isinstance(settings, Encoder)
    seeds = replace(settings.training.seeds, head=seed, order=seed, dropout=seed)
    settings = replace(settings, training=replace(settings.training, epochs=EPOCHS, seeds=seeds, precision="fp32"))
    kept = {name: rows_apart(name, learned, tasks) for name in learned}
    auxiliary = {name: Beside(tasks[name][0], kept[name], len(tasks[name][1]) - len(kept[name])) for name in others}
    competition, _, development = tasks[first]
    split = Split(kept[first], development, development.head(0), auxiliary)
    backbone = artifacts.backbone_facts("minilm")["sha256"]
    start = Start(" and ".join(learned), settings, competition, 1, backbone=backbone, max_attempts=2)
    run = Run(start.member, artifacts, Checkpoint(WORK / "-".join([str(seed), *learned])))
    opened, built = open_run(split, start, settings, run), []

    def build() -> nn.Module:
        backbone = trainable_backbone(opened.base, settings, opened.device.name)
        network = encoder_network(backbone, settings, competition.kind, len(competition.outputs), None)
        built.append(with_auxiliary(network, settings, auxiliary))
        return built[-1]

    network, about, _ = train_network(build, split, opened, run.checkpoint)
    heads = {first: network, **{name: built[-1].of(name) for name in others}}
    assert all(head.backbone is network.backbone for head in heads.values())
    found: dict[str, Any] = {"failed": about["failed"], "attempts": about["attempts"], "scores": {}}
    for name, head in heads.items():
        competition, _, development = tasks[name]
        with tempfile.TemporaryDirectory() as temporary:
            save_encoder(head, [], settings, competition, opened.backbone, None, Path(temporary))
            means = predict_member(Path(temporary), artifacts, development, competition)
        labels, answers = development["label"].to_numpy(), Answers(means, PLAIN.apply(means, competition))
        found["scores"][name] = score(labels, answers, np.arange(len(labels)), competition)
    print(f"seed {seed}, {start.member}: {found}", flush=True)
    return found


def rows_apart(name: str, learned: list[str], tasks: dict[str, Rows]) -> pl.DataFrame:
    """Returns what is learned of a task, without the texts of the other tasks' development rows."""
    competition, rows, _ = tasks[name]
    for other in learned:
        if other != name:
            rows = without_texts_of(tasks[other][2], tasks[other][0].kind, rows, competition.kind)
    return rows


def main(seeds: int, output: Path) -> None:
    tasks, arms = read_tasks(), {"together": list(TASKS), **{name: [name] for name in TASKS}}
    parts: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = Artifacts(Path(temporary))
        lay_out(artifacts)
        for seed in range(seeds):
            for arm, learned in arms.items():
                file = WORK / f"{arm}{seed}.json"
                if not file.exists():
                    write_json(file, trained(learned, tasks, seed, artifacts))
                part = read_json(file)
                parts[arm].append({key: part[key] for key in ("scores", "attempts", "failed")})
    scores = {
        "one for all three": {name: [each["scores"][name] for each in parts["together"]] for name in TASKS},
        "one for each": {name: [each["scores"][name] for each in parts[name]] for name in TASKS},
    }
    rows_of = {name: len(development) for name, (_, _, development) in tasks.items()}
    write("multitask", {"scores": scores, "parts": parts, "rows": rows_of}, output, seeds=seeds, epochs=EPOCHS)
    lines = [("BERT-base, published", *told([[score] for score in PUBLISHED.values()]))]
    lines += [(f"MiniLM, {name}", *told(list(each.values()))) for name, each in scores.items()]
    text = markdown(["networks", *NAMES.values(), "mean"], lines)
    (output / "multitask.md").write_text(f"Seeds: {seeds}; development rows of the handout.\n\n{text}\n")
    print(text)


def told(scores: list[list[float]]) -> list[str]:
    """Returns the mean over seeds of each task, and the mean of those, where a correlation r counts as (1 + r) / 2."""
    *accuracies, correlation = (float(np.mean(each)) for each in scores)
    whole = float(np.mean([*accuracies, (1 + correlation) / 2]))
    return [f"{mean:.3f}" for mean in (*accuracies, correlation, whole)]


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    with stage("multitask", keep_seconds=False):
        main(options.seeds, options.output)
