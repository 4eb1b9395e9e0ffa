"""What do the guard and the start at the prior do where one class is rare?

python -m benchmarks.stability.unbalanced           # five seeds; nine minutes on one core
python -m benchmarks.stability.unbalanced --quick   # one seed; two minutes

The texts are generated. Each has some of eight telling words, a positive one about six times as many as a negative one,
among three hundred that tell nothing. A small encoder without any pretraining (2 layers of 64 units) learns from them,
with and without the guard, with and without `prior_start`. The table has the log loss on other rows, then that of the
constant predictor; and in brackets how often a run was stopped or given up, where one was.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from torch import nn

from benchmarks.result import command_line, markdown, write
from pipeline.competitions.task import Competition, Label
from pipeline.data.text import encode
from pipeline.members.encoder import trainable_backbone
from pipeline.models.backbones.scratch import build_scratch
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import encoder_network
from pipeline.settings.backbones import Scratch
from pipeline.settings.encoder import Encoder
from pipeline.stage import stage
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import training_device
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.prior import Prior
from pipeline.training.restarts import Job, train
from pipeline.validation import validated


class Size(NamedTuple):
    """One set: rows to learn from, and how many of them are positive."""

    positives: float
    rows: int


SIZES = (Size(0.005, 7_800), Size(0.08, 2_400), Size(0.3, 2_400))
HELD = 4_000
ATTEMPTS = 3
SEEDS = 5
WORDS = np.array([f"w{number}" for number in range(300)])
TELLING = np.array([f"sign{number}" for number in range(8)])
SAID = {0: 0.5, 1: 3.0}
"""Telling words in a text, on average."""
COMPETITION = Competition(
    "unbalanced", "text", "log_loss", "id", {"text": "text"}, Label(column="label"), classes=("no", "yes")
)
BACKBONE: dict[str, Any] = {
    "source": "scratch",
    "architecture": "deberta-v3",
    "vocabulary": 600,
    "hidden": 64,
    "layers": 2,
    "heads": 2,
    "positions": 64,
}
TRAINING: dict[str, Any] = {
    "schedule": {"rate": 1.0e-3},
    "batches": {"rows_per_step": 32, "tokens_per_batch": 4096},
    "precision": "fp32",
}


def rows_of(positives: float, count: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Returns texts and their classes; the share of the positives is exact."""
    draw = np.random.default_rng([seed, count])
    labels = draw.permutation(np.arange(count) < round(positives * count)).astype(np.int64)
    texts = []
    for label in labels:
        words = [*draw.choice(WORDS, draw.integers(8, 20)), *draw.choice(TELLING, draw.poisson(SAID[int(label)]))]
        texts.append([" ".join(draw.permutation(words))])
    return pl.DataFrame({"text": texts}), labels


def run(
    size: Size,
    seed: int,
    attempts: int,
    prior_start: bool,
    base: Path,
    changed: Mapping[str, Any] = MappingProxyType({}),
    held_rows: int = HELD,
) -> dict[str, Any]:
    """Returns the log losses of the network and of the constant predictor, how often a run was stopped, and its steps.

    `changed` holds settings of the training that replace its own.
    """
    seeds = {"head": seed, "order": seed, "dropout": seed}
    training = TRAINING | {"seeds": seeds, "prior_start": prior_start} | changed
    settings = validated(
        Encoder, {"kind": "encoder", "backbone": "small", "max_tokens": 48, "training": training}, "member"
    )
    device, tokenizer = training_device("fp32", 1), load_tokenizer(base)

    def build() -> nn.Module:
        backbone = trainable_backbone(base, settings, device.name)
        return encoder_network(backbone, settings, COMPETITION.kind, 2, None).to(device.name)

    def objective(count: int, drawn: int) -> Supervised:
        rows, labels = rows_of(size.positives, count, drawn)
        encoded = encode(rows, tokenizer, "encoder", COMPETITION, True, settings.max_tokens)
        sizes, pad_id = settings.training.batches, int(tokenizer.pad_token_id)
        per_step, per_batch = sizes.rows_per_step, sizes.tokens_per_batch
        return Supervised(encoded, labels, COMPETITION.family, pad_id, device.name, per_step, per_batch, 0.0, seed)

    learned, held = objective(size.rows, seed), objective(held_rows, 1000 + seed)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(build, learned, None, settings.training, attempts, device, Checkpoint(Path(folder)), "unbalanced")
        trained = train(job)
    prior = Prior(COMPETITION.family, learned.labels).losses(held.labels).mean()
    stopped = [each["stopped"] for each in trained.attempts if each["stopped"]]
    steps = sum(each["steps"] for each in trained.attempts)
    return {"loss": held.score(trained.network.eval()), "prior": float(prior), "stopped": stopped, "steps": steps}


def build_base(folder: Path) -> None:
    """Writes the small network, which nothing has trained yet, and its tokenizer."""
    texts = [text for row in rows_of(0.5, 2_000, 0)[0]["text"] for text in row]
    build_scratch(validated(Scratch, BACKBONE, "BACKBONE"), texts, folder)


def main() -> None:
    """Makes all runs, prints the table and writes the result."""
    parser = command_line(__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed")
    asked = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        build_base(base)
        for size in SIZES:
            for seed in range(1 if asked.quick else SEEDS):
                for prior_start in (False, True):
                    for attempts in (0, ATTEMPTS):
                        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                            found = run(size, seed, attempts, prior_start, base)
                        here = {"seed": seed, "prior_start": prior_start, "guard": attempts > 0}
                        runs.append(size._asdict() | here | found)
    ways = [(start, guard) for start in (False, True) for guard in (False, True)]
    lines = []
    for size in SIZES:
        own = [each for each in runs if each["positives"] == size.positives]
        line = [f"{size.positives:.1%}", size.rows, " ".join(f"{each['prior']:.4f}" for each in own[:: len(ways)])]
        for start, guard in ways:
            cell = [each for each in own if (each["prior_start"], each["guard"]) == (start, guard)]
            stops = sum(len(each["stopped"]) for each in cell)
            line.append(" ".join(f"{each['loss']:.4f}" for each in cell) + (f" ({stops})" if stops else ""))
        lines.append(line)
    names = [f"{'prior' if start else 'random'} start{', guard' if guard else ''}" for start, guard in ways]
    print(markdown(["positives", "rows", "constant", *names], lines))
    write("unbalanced", {"runs": runs}, asked.output, quick=asked.quick)


if __name__ == "__main__":
    with stage("unbalanced benchmark", keep_seconds=False):
        main()
