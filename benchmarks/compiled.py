"""Whether torch.compile pays: one pass over real rows, the first one with its warm-up, and those after it.

python -m benchmarks.compiled [--rows 64]        # ten minutes on two cores; writes benchmarks/results/compiled.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine
from benchmarks.speed.protocol import TOKENS_PER_BATCH, Bench, opened
from pipeline.data.batches import inference_batches
from pipeline.files import write_json
from pipeline.inference.forward import batch_logits, batch_tensors

RESULTS = Path("benchmarks/results/compiled.json")
PASSES = 3


def seconds(bench: Bench, network: Any, trains: bool) -> list[float]:
    """Of each pass over the held rows: answers alone, or forward and backward."""
    encoded = bench.encoded(bench.held)
    batches = inference_batches(encoded.lengths(), encoded.views, TOKENS_PER_BATCH)
    pad_id = int(bench.tokenizer.pad_token_id)
    found = []
    for _ in range(PASSES):
        began = time.perf_counter()
        for rows in batches:
            if trains:
                network(*batch_tensors(encoded, rows, pad_id, "cpu")).square().mean().backward()
            else:
                batch_logits(network, encoded, rows, pad_id, "cpu")
        found.append(round(time.perf_counter() - began, 2))
    return found


def main() -> None:
    """Prints a line per network and way, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = opened(Path(folder), 1, asked.rows, "fp32")
        for attention in ("huggingface", "fast"):
            for compiled in (False, True):
                for trains in (False, True):
                    network = bench.network(attention, 0).train(trains)
                    if compiled:
                        network.backbone = torch.compile(network.backbone, dynamic=True)
                    line: dict[str, Any] = {"attention": attention, "compiled": compiled, "trains": trains}
                    try:
                        line["seconds"] = seconds(bench, network, trains)
                    except Exception as error:  # what the compiler does not take is a result
                        line["failed"] = " ".join(str(error).split())[:200]
                    print(line, flush=True)
                    lines.append(line)
                    torch._dynamo.reset()
    about = {"date": date.today().isoformat(), "machine": machine(), "torch": torch.__version__}
    write_json(RESULTS, about | vars(asked) | {"lines": lines})


if __name__ == "__main__":
    main()
