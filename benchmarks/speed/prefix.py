"""What does it save to compute the common beginning of a row's prompts once, and what does a small decoder know as it
came?

python -m benchmarks.speed.prefix [--rows 40]
# needs ../shared/data/science_exam; writes benchmarks/results/prefix.json

SmolLM2-135M-Instruct with its pretrained weights (benchmarks.build.pretrained) answers in tokens, untrained, to
questions with five options: each option is a prompt of its own, whose beginning is the question. So many rows are asked
both ways in turn; then all 200, once, for MAP@3. fp32.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.build.outcomes import SHARED
from benchmarks.build.pretrained import smollm2
from benchmarks.result import command_line, markdown, write
from pipeline.competitions.metrics import metric_named
from pipeline.competitions.registry import load_competition
from pipeline.config import member_settings
from pipeline.data.batches import inference_batches
from pipeline.data.prompt import prompt_of
from pipeline.inference.forward import batch_logits
from pipeline.inference.network_member import encoded_rows
from pipeline.ingest.prepare import read_train
from pipeline.models.backbones.language_head import language_head
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import decoder_network

MEMBER = {
    **{"kind": "decoder", "backbone": "smollm2", "head": "tokens", "max_tokens": 512},
    "training": {"epochs": 0, "schedule": {"rate": 1.0e-4}},
    "inference": {"tokens_per_batch": 4096},
}
RANDOM = (1 + 1 / 2 + 1 / 3) / 5
"""MAP@3 of a random order of five."""


def main(rows: int, output: Path) -> None:
    file = SHARED / "science_exam" / "train.csv"
    if not file.is_file():
        print(f"{file} is not here: not measured")
        return
    settings: Any = member_settings(MEMBER)
    folder = smollm2()
    tokenizer = load_tokenizer(folder)
    frame, competition = read_train(file, load_competition("llm-science-exam"))
    network: Any = decoder_network(load_backbone(folder, "fp32", "cpu"), settings, competition).eval()
    network.head.take(*language_head(folder, prompt_of(tokenizer, competition).answers))
    pad_id = int(tokenizer.pad_token_id)
    computed = [0]

    def count(_: Any, given: tuple[Tensor, ...], __: Tensor) -> None:
        computed[0] += given[0].numel()

    network.backbone.get_input_embeddings().register_forward_hook(count)

    def ask(asked: Any, shares: bool) -> dict[str, Any]:
        network.shares = (shares, False)
        encoded = encoded_rows(asked, settings, tokenizer, competition)
        computed[0], began, logits = 0, time.perf_counter(), torch.zeros(len(asked), len(competition.outputs))
        for batch in inference_batches(encoded.lengths(), encoded.views, settings.inference.tokens_per_batch):
            logits[batch] = batch_logits(network, encoded, batch, pad_id, "cpu")
        return {"tokens": computed[0], "seconds": time.perf_counter() - began, "logits": logits}

    few = frame.head(rows)
    whole, shared = ask(few, False), ask(few, True)
    everything = ask(frame, True)
    labels = frame["label"].to_numpy()
    means = competition.family.means(everything["logits"].double().numpy())
    told = {
        "rows": rows,
        "threads": torch.get_num_threads(),
        "whole": {key: whole[key] for key in ("tokens", "seconds")},
        "shared": {key: shared[key] for key in ("tokens", "seconds")},
        "largest_difference": float((whole["logits"] - shared["logits"]).abs().max()),
        "map@3": metric_named("map@3").score(labels, means, np.arange(len(labels))),
        "map@3_error": float(metric_named("map@3").per_row(labels, means).std() / np.sqrt(len(labels))),
        "map@3_random": RANDOM,
        "scored": len(labels),
    }
    write("prefix", told, output)
    lines = [[way, told[way]["tokens"], f"{told[way]['seconds']:.1f}"] for way in ("whole", "shared")]
    print(markdown(("prompts", "tokens computed", "seconds"), lines))
    print(f"largest difference of a logit {told['largest_difference']:.1e}")
    print(f"MAP@3 as it came, {len(labels)} rows: {told['map@3']:.3f} ± {told['map@3_error']:.3f}; random {RANDOM:.3f}")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=int, default=40, help="so many are asked both ways")
    arguments = parser.parse_args()
    main(arguments.rows, arguments.output)
