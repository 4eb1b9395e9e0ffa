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

from benchmarks.stability.protocol import PRETRAINING
from benchmarks.stability.runs import Asked, encoder_in, run
from pipeline.files import sha256_file

RUNS = "runs.jsonl"


def work_of(epochs: int) -> Path:
    """Returns the folder of the runs that begin from an encoder which was pretrained for so many epochs."""
    return Path("work/stability") / ("" if epochs == PRETRAINING["epochs"] else f"{epochs}-epochs")


def known(work: Path) -> dict[Asked, dict[str, Any]]:
    """Returns the runs that have ended."""
    file = work / RUNS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = [json.loads(line) for line in lines]
    return {Asked(*(each[key] for key in Asked._fields)): each for each in found}


def complete(cells: list[Asked], workers: int, epochs: int) -> None:
    """Makes the runs among `cells` that have not ended yet, each on one thread, from an encoder of so many epochs."""
    work = work_of(epochs)
    encoder, done = encoder_in(work, epochs), known(work)
    missing = [each for each in cells if each not in done]
    print(f"{len(missing)} of {len(cells)} runs to make; encoder {sha256_file(encoder / 'model.safetensors')[:12]}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _quiet) as pool, (work / RUNS).open("a", encoding="utf-8") as lines:
        futures = [pool.submit(_run, each, encoder, work) for each in missing]
        for future in tqdm(as_completed(futures), total=len(futures), mininterval=20, smoothing=0.05):
            lines.write(json.dumps(future.result()) + "\n")
            lines.flush()


def _quiet() -> None:
    warnings.filterwarnings("ignore")


def _run(asked: Asked, encoder: Path, work: Path) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        return run(asked, encoder, work)
