"""Do `prepare`, `folds` and the text features stay in memory and linear in time, up to 1,000,000 rows of about 2 KB?

python -m benchmarks.build.data [--rows N N ...]
# 4 minutes on two cores for the stages, making the rows not counted; writes benchmarks/results/data.json

The rows are generated in the LMSYS schema. Each stage is a process of its own, as in the pipeline; seconds include
Python's start and its imports. Times per row are compared in CPU seconds, which other work beside it changes least.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.process import run
from benchmarks.result import ROOT, command_line, write

ROWS = [57_000, 1_000_000]
GOAL = {"peak_mb": 1_500, "time_per_row": 1.0}
"""For every stage; the time per row is that of the most rows over that of the fewest."""
THREADS = 2
TURN_CHARACTERS = 640
ROWS_PER_PROMPT = 0.75
"""Rows over possible prompts: 70 % of the rows' prompts are then different ones, as among 57,000 real votes."""
GREETED = 0.01
"""Share of the rows with one and the same prompt: a group as large as that cannot be parted either."""

# No stage is named so: members, the stack and the kernel compute text features where they need them.
FEATURES = """
import polars as pl
from pipeline.competitions.registry import load_competition
from pipeline.data.features import text_features
features = text_features(pl.scan_parquet("artifacts/competition/train.parquet"), load_competition("lmsys").kind)
print(f"features: {features.height} rows, {features.width} columns")
"""
STAGES = {"prepare": ["-m", "stages.prepare"], "folds": ["-m", "stages.folds"], "features": ["-c", FEATURES]}

HEADER = ["id", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]
LABELS = [["1", "0", "0"], ["0", "1", "0"], ["0", "0", "1"]]
SYMBOLS = ['"quoted"', "line\nbreak", "naïve", "中文", "emoji 😀", "back\\slash"]


def write_competition(folder: Path, rows: int, seed: int = 0) -> None:
    """train.csv with `rows` rows, test.csv and sample_submission.csv with a tenth of that."""
    generator = random.Random(seed)
    cells = _cells(generator, prompts=int(rows / ROWS_PER_PROMPT))
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        writer.writerows([str(number), *next(cells), *generator.choice(LABELS)] for number in range(rows))
    with (
        (folder / "test.csv").open("w", encoding="utf-8", newline="") as stream,
        (folder / "sample_submission.csv").open("w", encoding="utf-8", newline="") as sample_stream,
    ):
        writer, sample = csv.writer(stream), csv.writer(sample_stream)
        writer.writerow(HEADER[:4])
        sample.writerow([HEADER[0], *HEADER[4:]])
        for number in range(rows, rows + max(1, rows // 10)):
            writer.writerow([str(number), *next(cells)])
            sample.writerow([str(number), "0.4", "0.3", "0.3"])


def _cells(generator: random.Random, prompts: int) -> Iterator[list[str]]:
    """Prompt and two answers as JSON lists of one turn or two, for ever, from a pool of encoded texts."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(5_000)] + 40 * SYMBOLS
    texts = [" ".join(generator.choices(words, k=200))[:TURN_CHARACTERS] for _ in range(4_000)]
    # Emoji as pairs of \\u escapes, or as they are.
    pools = {
        (turns, ascii_only): [json.dumps(text[: TURN_CHARACTERS // turns], ensure_ascii=ascii_only) for text in texts]
        for turns in (1, 2)
        for ascii_only in (True, False)
    }
    while True:
        turns, ascii_only = generator.choice([1, 1, 1, 1, 2]), generator.random() < 0.5
        half_a_pair = generator.random() < 0.001  # as in the real file: strict decoders refuse it
        pool = pools[turns, ascii_only]
        answers = [generator.choices(pool, k=turns) for _ in range(2)]
        if half_a_pair:
            answers[1][0] = f'{answers[1][0][:-1]}\\ud83d"'
        question = generator.randrange(prompts)
        first = '"Hello!"' if generator.random() < GREETED else f'"{question}: {pool[question % len(pool)][1:]}'
        prompt = [first, *generator.choices(pool, k=turns - 1)]
        yield [f"[{', '.join(each)}]" for each in (prompt, *answers)]


def write_params(folder: Path) -> None:
    """The params.yaml of this checkout, for the competition in `folder`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"], params["threads"] = {"path": ".", "competition": "lmsys"}, THREADS
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def measure(stage: str, folder: Path, rows: int) -> dict[str, float]:
    """Returns wall and CPU seconds and peak MB of one stage."""
    variables = {"POLARS_MAX_THREADS": str(THREADS), "PYTHONPATH": str(ROOT)}
    used = run([sys.executable, *STAGES[stage]], folder, variables)
    return {
        "seconds": used.seconds,
        "cpu_seconds": used.cpu_seconds,
        "cpu_seconds_per_1000_rows": round(1000 * used.cpu_seconds / rows, 4),
        "peak_mb": used.peak_mb,
    }


def measured(rows: int) -> dict[str, Any]:
    """Returns what every stage takes on one generated competition."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_competition(folder, rows)
        write_params(folder)
        found: dict[str, Any] = {"rows": rows, "csv_mb": round((folder / "train.csv").stat().st_size / 1e6, 1)}
        return found | {stage: measure(stage, folder, rows) for stage in STAGES}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    arguments = parser.parse_args()
    runs = [measured(rows) for rows in sorted(arguments.rows)]
    per_row = "cpu_seconds_per_1000_rows"
    print(f"{'stage':>9} {'rows':>10} {'seconds':>8} {'CPU seconds':>12} {'per 1,000 rows':>15} {'peak MB':>8}")
    for stage in STAGES:
        for each in runs:
            found = each[stage]
            numbers = f"{found['seconds']:>8.2f} {found['cpu_seconds']:>12.2f} {found[per_row]:>15.4f}"
            print(f"{stage:>9} {each['rows']:>10,} {numbers} {found['peak_mb']:>8.0f}")
    ratios = {stage: round(runs[-1][stage][per_row] / runs[0][stage][per_row], 2) for stage in STAGES}
    print(f"CPU time per row, the most rows over the fewest: {ratios}")
    print(
        f"goal at {ROWS[-1]:,} rows: at most {GOAL['peak_mb']:,} MB and {GOAL['time_per_row']} times the time per row"
    )
    write("data", {"runs": runs, "cpu_time_per_row_ratio": ratios}, arguments.output, threads=THREADS, goal=GOAL)


if __name__ == "__main__":
    main()
