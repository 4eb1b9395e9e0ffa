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

from benchmarks.stability.runs import Asked, encoder_in, run
from pipeline.files import sha256_file

WORK = Path("work/stability")
RUNS = WORK / "runs.jsonl"


def known() -> dict[Asked, dict[str, Any]]:
    """Returns the runs that have ended."""
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
