"""What do the guard and the start at the prior do where classes are rare, many, or even?

python -m benchmarks.stability.unbalanced                   # all sets and rates, twelve seeds: an hour on two cores
python -m benchmarks.stability.unbalanced --quick           # one seed of the sets with two classes at the middle rate
python -m benchmarks.stability.unbalanced --seeds 3 --rates 1.0e-3

The texts are generated. Each has some telling words of its class, and fewer of the other classes', among three hundred
that tell nothing. A small encoder without any pretraining (2 layers of 64 units) learns from them for one epoch, with
and without the guard; in the first seeds also with a random start in place of `prior_start`. The score is the log loss
on other rows. A run has learned where it is better than the constant predictor there by the share that the guard asks
for. A false alarm is a run that learns without the guard and was stopped with it.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
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
from pipeline.training.devices.device import training_device
from pipeline.training.guard import FLAT
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.prior import Prior
from pipeline.training.restarts import Job, train
from pipeline.validation import validated


class Texts(NamedTuple):
    """One set: how often each class is there, and how many rows are learned from."""

    name: str
    shares: tuple[float, ...]
    rows: int


SETS = (
    Texts("0.5 % positive", (0.995, 0.005), 7_800),
    Texts("2 % positive", (0.98, 0.02), 4_000),
    Texts("8 % positive", (0.92, 0.08), 2_400),
    Texts("30 % positive", (0.7, 0.3), 1_800),
    Texts("50 % positive", (0.5, 0.5), 1_800),
    Texts("5 classes", (0.4, 0.3, 0.15, 0.1, 0.05), 2_400),
    Texts("65 classes", tuple((1 / np.arange(1, 66) / (1 / np.arange(1, 66)).sum()).tolist()), 8_000),
)
RATES = (3.0e-4, 1.0e-3, 1.0e-2)
"""A small one, a good one, and one at which training fails on the rarer classes."""
HELD = 3_000
ATTEMPTS = 3
SEEDS = 12
RANDOM_STARTS = 2
"""So many seeds also begin at random."""
WORDS = [f"w{number}" for number in range(300)]
OWN, OTHERS = 3.0, 0.5
"""Telling words in a text, on average: its class's own, and those of another class drawn for the text."""
BACKBONE: dict[str, Any] = {
    "source": "scratch",
    "architecture": "deberta-v3",
    "vocabulary": 700,
    "hidden": 64,
    "layers": 2,
    "heads": 2,
    "positions": 64,
}
TRAINING: dict[str, Any] = {
    "batches": {"rows_per_step": 32, "tokens_per_batch": 4096},
    "precision": "fp32",
}


def signs(number: int) -> list[str]:
    """Returns the telling words of the class of that number."""
    return [f"sign{number}a", f"sign{number}b", f"sign{number}c", f"sign{number}d"]


def rows_of(texts: Texts, count: int, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Returns `count` texts and their classes, whose shares are exact but for rounding."""
    draw = np.random.default_rng([seed, count])
    edges = np.round(np.cumsum(texts.shares) * count)
    labels = np.searchsorted(edges, draw.permutation(count), side="right").astype(np.int64)
    rows = []
    for label in labels:
        other = (label + draw.integers(1, len(texts.shares))) % len(texts.shares)
        words = [*draw.choice(WORDS, draw.integers(8, 20)), *draw.choice(signs(label), draw.poisson(OWN))]
        rows.append([" ".join(draw.permutation([*words, *draw.choice(signs(other), draw.poisson(OTHERS))]))])
    return pl.DataFrame({"text": rows}), labels


def run(
    texts: Texts,
    rate: float,
    seed: int,
    attempts: int,
    prior_start: bool,
    base: Path,
    changed: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns the log losses of the network and of the constant predictor, how often a run was stopped, and its steps.

    `changed` holds settings of the training that replace its own.
    """
    seeds = {"head": seed, "order": seed, "dropout": seed}
    training = TRAINING | {"seeds": seeds, "prior_start": prior_start, "schedule": {"rate": rate}} | changed
    settings = validated(
        Encoder, {"kind": "encoder", "backbone": "small", "max_tokens": 48, "training": training}, "member"
    )
    names = tuple(str(number) for number in range(len(texts.shares)))
    competition = Competition(
        "unbalanced", "text", "log_loss", "id", {"text": "text"}, Label(column="label"), classes=names
    )
    device, tokenizer = training_device("fp32", 1), load_tokenizer(base)

    def build() -> nn.Module:
        backbone = trainable_backbone(base, settings, device.name)
        return encoder_network(backbone, settings, competition.kind, len(names), None).to(device.name)

    def objective(count: int, drawn: int) -> Supervised:
        rows, labels = rows_of(texts, count, drawn)
        encoded = encode(rows, tokenizer, "encoder", competition, True, settings.max_tokens)
        sizes, pad_id = settings.training.batches, int(tokenizer.pad_token_id)
        per_step, per_batch = sizes.rows_per_step, sizes.tokens_per_batch
        return Supervised(encoded, labels, competition.family, pad_id, device.name, per_step, per_batch, 0.0, seed)

    learned, held = objective(texts.rows, seed), objective(HELD, 1000 + seed)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(build, learned, None, settings.training, attempts, device, Checkpoint(Path(folder)), "unbalanced")
        trained = train(job)
    prior = float(Prior(competition.family, learned.labels).losses(held.labels).mean())
    loss = held.score(trained.network.eval())
    stopped = [each["stopped"] for each in trained.attempts if each["stopped"]]
    steps = sum(each["steps"] for each in trained.attempts)
    return {"loss": loss, "prior": prior, "learned": loss < (1 - FLAT) * prior, "stopped": stopped, "steps": steps}


def row_of(runs: list[dict[str, Any]]) -> list[object]:
    """Returns what the table says of the runs of one set at one rate."""

    def cell(prior_start: bool, guard: bool) -> list[dict[str, Any]]:
        return [each for each in runs if (each["prior_start"], each["guard"]) == (prior_start, guard)]

    def mean(several: list[dict[str, Any]]) -> str:
        return f"{np.mean([each['loss'] for each in several]):.4f}" if several else "not run"

    plain, guarded = cell(True, False), cell(True, True)
    pairs = list(zip(plain, guarded, strict=True))
    gains = np.array([with_it["loss"] - without["loss"] for without, with_it in pairs])
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    false = sum(bool(with_it["stopped"]) for without, with_it in pairs if without["learned"])
    collapses = [with_it["learned"] for without, with_it in pairs if not without["learned"]]
    return [
        f"{np.mean([each['prior'] for each in runs]):.4f}",
        mean(cell(False, False)),
        mean(plain),
        mean(guarded),
        f"{gains.mean():+.4f} ± {error:.4f}",
        f"{false} of {len(plain) - len(collapses)}",
        f"{sum(collapses)} of {len(collapses)}",
    ]


COLUMNS = ["set", "rate", "constant", "random start", "prior start", "and guard", "guard's difference"]
COUNTS = ["false alarms, of runs that learn", "saved, of runs that do not"]


def build_base(folder: Path) -> None:
    """Writes the small network, which nothing has trained yet, and its tokenizer."""
    texts = [text for each in SETS for row in rows_of(each, 1_000, 0)[0]["text"] for text in row]
    build_scratch(validated(Scratch, BACKBONE, "BACKBONE"), texts, folder)


def measured(task: tuple[Texts, float, int, int, bool], base: Path) -> dict[str, Any]:
    """Returns one run and its result, in a process of the pool; what training prints is dropped."""
    texts, rate, seed, attempts, prior_start = task
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = run(texts, rate, seed, attempts, prior_start, base)
    told = {"set": texts.name, "rate": rate, "seed": seed, "prior_start": prior_start, "guard": attempts > 0}
    return told | found


def main() -> None:
    """Makes all runs, a process per core, prints the table, and writes the result after every seed."""
    parser = command_line(__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed of the sets with two classes, at 1.0e-3")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each kind")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    asked = parser.parse_args()
    sets = [each for each in SETS if len(each.shares) == 2] if asked.quick else SETS
    rates, seeds = ((1.0e-3,), 1) if asked.quick else (asked.rates, asked.seeds)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        base = Path(folder)
        texts = [text for each in SETS for row in rows_of(each, 1_000, 0)[0]["text"] for text in row]
        build_scratch(validated(Scratch, BACKBONE, "BACKBONE"), texts, base)
        for seed in range(seeds):
            starts = (True, False) if seed < RANDOM_STARTS else (True,)
            tasks = product(sets, rates, (seed,), (0, ATTEMPTS), starts)
            runs += pool.map(partial(measured, base=base), tasks)
            lines = []
            for each in sets:
                for rate in rates:
                    own = [one for one in runs if (one["set"], one["rate"]) == (each.name, rate)]
                    lines.append([f"{each.name}, {each.rows:,} rows", f"{rate:.0e}", *row_of(own)])
            result = write("unbalanced", {"runs": runs}, asked.output, seeds=seed + 1, random_starts=RANDOM_STARTS)
            table = markdown([*COLUMNS, *COUNTS], lines)
            about = f"`python -m benchmarks.stability.unbalanced`, {result['date']}, {result['machine']}"
            (asked.output / "unbalanced.md").write_text(f"{about}, {seed + 1} seeds\n\n{table}\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    with stage("unbalanced benchmark", keep_seconds=False):
        main()
