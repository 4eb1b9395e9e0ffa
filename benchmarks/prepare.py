"""Seconds and peak memory of `prepare` on generated rows of about 2 KB in the LMSYS schema.

python -m benchmarks.prepare [--rows N] [--no-write]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from benchmarks.machine import machine

RESULT = Path("benchmarks/results/prepare.json")
GOAL = {"rows": 57_000, "seconds": 5, "peak_mb": 1_000}
THREADS = 2
TURN_CHARACTERS = 640

# What the stage does, in a process of its own: the seconds include Python's start and the import of polars.
CHILD = """
import sys
from pathlib import Path

from benchmarks.machine import machine
from pipeline.competitions.registry import load_competition
from pipeline.data.ingest import prepare
prepare(Path(sys.argv[1]), load_competition("lmsys"), Path(sys.argv[1]) / "competition")
"""

HEADER = ["id", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]
SYMBOLS = ['"quoted"', "line\nbreak", "naïve", "中文", "emoji 😀", "back\\slash"]


def write_competition(folder: Path, rows: int, seed: int = 0) -> None:
    """train.csv with `rows` rows, test.csv and sample_submission.csv with a tenth of that."""
    generator = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(5_000)] + 40 * SYMBOLS
    pool = [" ".join(generator.choices(words, k=200))[:TURN_CHARACTERS] for _ in range(4_000)]

    def texts() -> list[str]:
        turns = generator.choice([1, 1, 1, 1, 2])
        ascii_only = generator.random() < 0.5  # emoji as pairs of \\u escapes, or as they are
        cells = [[generator.choice(pool)[: TURN_CHARACTERS // turns] for _ in range(turns)] for _ in range(3)]
        if generator.random() < 0.001:
            cells[2][0] += "\ud83d"  # as in the real file: half of a pair, which strict decoders refuse
            ascii_only = True
        return [json.dumps(cell, ensure_ascii=ascii_only) for cell in cells]

    labels = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        writer.writerows([str(number), *texts(), *generator.choice(labels)] for number in range(rows))
    with (
        (folder / "test.csv").open("w", encoding="utf-8", newline="") as stream,
        (folder / "sample_submission.csv").open("w", encoding="utf-8", newline="") as sample_stream,
    ):
        writer, sample = csv.writer(stream), csv.writer(sample_stream)
        writer.writerow(HEADER[:4])
        sample.writerow([HEADER[0], *HEADER[4:]])
        for number in range(rows, rows + max(1, rows // 10)):
            writer.writerow([str(number), *texts()])
            sample.writerow([str(number), "0.4", "0.3", "0.3"])


def measure(folder: Path) -> dict[str, float]:
    """Wall and CPU seconds and peak MB of one run. A child starts as a copy of this process, so it stays small."""
    started = time.monotonic()
    environment = {**os.environ, "POLARS_MAX_THREADS": str(THREADS)}
    subprocess.run([sys.executable, "-c", CHILD, str(folder)], check=True, env=environment)
    seconds = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=GOAL["rows"])
    parser.add_argument("--no-write", action="store_true", help=f"leave {RESULT} as it is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_competition(folder, arguments.rows)
        csv_mb = (folder / "train.csv").stat().st_size / 1e6
        found = measure(folder)
    print(f"{'rows':>10} {'MB of CSV':>10} {'seconds':>8} {'CPU seconds':>12} {'peak MB':>8}")
    numbers = f"{found['seconds']:>8.2f} {found['cpu_seconds']:>12.2f} {found['peak_mb']:>8.0f}"
    print(f"{arguments.rows:>10,} {csv_mb:>10.0f} {numbers}")
    print(f"goal: {GOAL['rows']:,} rows in at most {GOAL['seconds']} s and {GOAL['peak_mb']:,} MB")
    if not arguments.no_write:
        result = {"date": date.today().isoformat(), "machine": machine(), "threads": THREADS, "rows": arguments.rows}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(
            json.dumps({**result, "csv_mb": round(csv_mb, 1), **found}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
