"""Makes the runs that are missing, one process per core, and keeps each as soon as it has ended."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.stability.protocol import SCREENED, SEEDS, SETS
from benchmarks.stability.runs import Asked, encoder_in, run
from benchmarks.stability.strategies import STRATEGIES
from pipeline.files import sha256_file

WORK = Path("work/stability")
RUNS = WORK / "runs.jsonl"
GUARDED = ("plain", "guard")
"""Measured at every rate, on both sets, with every seed."""
BEST = "smooth-mlm"
"""The highest mean on the choice half of the screening at the cost of one run: with every seed, on both sets."""
POOL = range(50)
"""Seeds of the ten epochs from which ensembles of ten are drawn, beside DENI's 25."""


def wanted() -> list[Asked]:
    """Every cell, the most important ones first."""
    whole = [
        Asked(name, data, rate, seed)
        for seed in SEEDS
        for rate in ("high", "middle", "low")
        for data in SETS
        for name in GUARDED
    ]
    long = {"ten epochs": POOL, "deni": SEEDS}
    others = [name for name in STRATEGIES if name not in GUARDED and name not in long]
    screening = [Asked(name, "sentiment", "middle", seed) for seed in SCREENED for name in others]
    # What takes twenty epochs comes last, so that it keeps nothing else waiting.
    screening.sort(key=lambda each: STRATEGIES[each.strategy].changed.get("epochs", 0))
    best = [Asked(BEST, data, "middle", seed) for seed in SEEDS for data in SETS]
    screening += [each for each in best if each not in screening]
    return whole + screening + [Asked(name, "sentiment", "low", seed) for name, seeds in long.items() for seed in seeds]


def known() -> dict[Asked, dict[str, Any]]:
    """The runs that have ended."""
    lines = RUNS.read_text(encoding="utf-8").splitlines() if RUNS.exists() else []
    found = [json.loads(line) for line in lines]
    return {Asked(*(each[key] for key in Asked._fields)): each for each in found}


def complete(cells: list[Asked], workers: int) -> None:
    """Makes the runs among `cells` that have not ended yet, each on one thread."""
    encoder, done = encoder_in(WORK), known()
    missing = [each for each in cells if each not in done]
    print(f"{len(missing)} of {len(cells)} runs to make; encoder {sha256_file(encoder / 'model.safetensors')[:12]}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _quiet) as pool, RUNS.open("a", encoding="utf-8") as lines:
        futures = [pool.submit(_run, each, encoder) for each in missing]
        for future in tqdm(as_completed(futures), total=len(futures), mininterval=20, smoothing=0.05):
            lines.write(json.dumps(future.result()) + "\n")
            lines.flush()


def _quiet() -> None:
    warnings.filterwarnings("ignore")


def _run(asked: Asked, encoder: Path) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        return run(asked, encoder, WORK)
