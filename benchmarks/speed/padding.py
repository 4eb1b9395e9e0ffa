"""What is computed for nothing on real lengths: padding, sequences read twice, prompts read in both orders?

python -m benchmarks.speed.padding [--rows 4000]        # a quarter of a minute; writes benchmarks/results/padding.json

It counts tokens and trains nothing. The table says what is left to gain; docs/speed.md draws the conclusions.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.result import command_line, markdown, write
from benchmarks.speed.protocol import ROWS_PER_STEP, TOKENS_PER_BATCH, texts_of, votes
from pipeline.competitions.registry import load_competition
from pipeline.data.batches import epoch_steps, inference_batches, padded
from pipeline.data.rows import swapped
from pipeline.data.text import Encoded, encode
from pipeline.models.backbones.obtain import obtain
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.deberta.packing import BLOCK_COST, division
from pipeline.settings.backbones import Scratch
from pipeline.stage import stage
from pipeline.validation import validated

BACKBONE = {"source": "scratch", "vocabulary": 8000, "hidden": 64, "layers": 1, "heads": 2, "positions": 2048}
"""The tokenizer alone is used."""
CASES = [("encoder", 512), ("encoder", 1024), ("decoder", 1024), ("decoder", 2048)]


def counted(rows: pl.DataFrame, family: str, max_tokens: int, tokenizer: Any) -> dict[str, float]:
    """Returns tokens computed per token that is there, by way of batching, and the shares that are read twice."""
    competition, siamese = load_competition("lmsys"), family == "encoder"
    encoded = encode(rows, tokenizer, family, competition, siamese, max_tokens)
    other = encode(swapped(rows, competition.kind), tokenizer, family, competition, siamese, max_tokens)
    lengths = np.array([len(each) for each in encoded.ids]).reshape(-1, encoded.views)
    longest, there = encoded.lengths(), lengths.sum()
    steps = epoch_steps(longest, encoded.views, ROWS_PER_STEP, TOKENS_PER_BATCH, [0])
    training = [batch for step in steps for batch in step]
    inference = inference_batches(longest, encoded.views, TOKENS_PER_BATCH)
    return {
        "tokens per row": float(there / len(rows)),
        "padded to the maximum": float(len(encoded.ids) * max_tokens / there),
        "batches of training": _whole(training, lengths) / there,
        "batches of inference": _whole(inference, lengths) / there,
        "blocks of training": _divided(training, lengths) / there,
        "blocks of inference": _divided(inference, lengths) / there,
        "sequences that stood before": 1 - len({each.tobytes() for each in encoded.ids}) / len(encoded.ids),
        "begin alike in both orders": _alike(encoded, other) / (2 * there),
    }


def _whole(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Tokens of padded batches."""
    return float(sum(lengths[rows].size * padded(int(lengths[rows].max())) for rows in batches))


def _divided(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Tokens of batches that are divided into blocks."""
    blocks = [block for rows in batches for block in division(lengths[rows].ravel(), BLOCK_COST["cpu"])]
    return float(sum(len(chosen) * length for chosen, length in blocks))


def _alike(one: Encoded, other: Encoded) -> int:
    """Tokens at the beginning of a sequence that are the same with the sides exchanged."""
    found = 0
    for first, second in zip(one.ids, other.ids, strict=True):
        shorter = min(len(first), len(second))
        apart = np.flatnonzero(first[:shorter] != second[:shorter])
        found += int(apart[0]) if len(apart) else shorter
    return found


def main() -> None:
    """Prints the table and writes it."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    asked = parser.parse_args()
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = votes(Path(folder)).sample(asked.rows, seed=0)
        texts = texts_of(rows)
        for family, max_tokens in CASES:
            base = Path(folder) / f"{family}-{max_tokens}"
            base.mkdir()
            architecture = {"encoder": "deberta-v3", "decoder": "llama"}[family]
            settings = validated(Scratch, BACKBONE | {"architecture": architecture}, "BACKBONE")
            obtain(base.name, settings, lambda: texts, base)
            table[f"{family}, {max_tokens}"] = counted(rows, family, max_tokens, load_tokenizer(base))
    names = next(iter(table.values()))
    print(markdown(["", *table], [[name, *(f"{column[name]:.3f}" for column in table.values())] for name in names]))
    sizes = {"rows_per_step": ROWS_PER_STEP, "tokens_per_batch": TOKENS_PER_BATCH}
    write("padding", {"table": table}, asked.output, rows=asked.rows, **sizes)


if __name__ == "__main__":
    with stage("padding benchmark", keep_seconds=False):
        main()
