"""The other sides: the Trainer and a pipeline of transformers, as their documentation has them.

The Trainer gets the same siamese network with transformers' own attention, once with every sequence padded to
the maximum, and once with a collator that pads to the longest of a batch and batches of similar length. The pipeline
scores each side with its prompt, one number per text, as a reward model does: as many sequences of the same tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from benchmarks.speed.protocol import MAX_TOKENS, ROWS_PER_STEP, Bench, labels_of
from pipeline.data.text import Encoded
from pipeline.models.network import Network


class Pairs(Dataset[dict[str, Any]]):
    """Rows of two sequences; `input_ids`, the longer one, is what the Trainer groups by."""

    def __init__(self, encoded: Encoded, labels: np.ndarray) -> None:
        self.encoded, self.labels = encoded, labels

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row >= len(self):
            raise IndexError(row)  # the Trainer asks for lengths by iterating
        pair = [each.tolist() for each in self.encoded.ids[2 * row : 2 * row + 2]]
        return {"pair": pair, "input_ids": max(pair, key=len), "label": int(self.labels[row])}


class Siamese(nn.Module):
    """What the Trainer calls: a loss where there are labels, and the logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """(rows * 2, length) ids and mask."""
        logits = self.network(input_ids, attention_mask)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Collator:
    """Pads the pairs of a batch, to the maximum or to the longest of them."""

    def __init__(self, tokenizer: Any, dynamic: bool) -> None:
        self.tokenizer, self.dynamic = tokenizer, dynamic

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        sequences = {"input_ids": [ids for row in rows for ids in row["pair"]]}
        how = {"padding": True} if self.dynamic else {"padding": "max_length", "max_length": MAX_TOKENS}
        found = self.tokenizer.pad(sequences, return_tensors="pt", **how)
        labels = torch.tensor([row["label"] for row in rows])
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"], "labels": labels}


def train(bench: Bench, network: Network, seed: int, work: Path, dynamic: bool) -> None:
    """One epoch of the Trainer, with the recipe of benchmarks/speed/protocol.py."""
    encoded = bench.encoded(bench.train)
    trainer = _trainer(bench, network, work, dynamic, seed, Pairs(encoded, labels_of(bench.train)))
    trainer.train()


def answer(bench: Bench, network: Network, rows: pl.DataFrame, work: Path, dynamic: bool) -> np.ndarray:
    """(rows, classes) logits, from texts on; with `dynamic` the rows are sorted by length first."""
    encoded = bench.encoded(rows)
    lengths = encoded.lengths()
    order = np.argsort(-lengths, kind="stable") if dynamic else np.arange(len(lengths))
    ids = [encoded.ids[2 * row + view] for row in order for view in range(2)]
    asked = Pairs(Encoded(ids, 2, {}, encoded.cut[order]), np.zeros(len(order), dtype=np.int64))
    found = _trainer(bench, network, work, dynamic, 0, None).predict(asked).predictions
    logits = np.empty_like(found)
    logits[order] = found
    return logits


def _trainer(
    bench: Bench, network: Network, work: Path, dynamic: bool, seed: int, rows: Dataset[dict[str, Any]] | None
) -> Trainer:
    training = bench.settings.training
    arguments = TrainingArguments(
        output_dir=str(work / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=ROWS_PER_STEP,
        per_device_eval_batch_size=ROWS_PER_STEP,
        learning_rate=training.schedule.rate,
        warmup_steps=training.schedule.warmup,
        lr_scheduler_type="linear",
        weight_decay=training.weight_decay,
        adam_epsilon=1.0e-6,
        max_grad_norm=training.clip,
        # For predictions it would leave the rows in the order of its batches.
        train_sampling_strategy="group_by_length" if dynamic and rows is not None else "random",
        bf16=training.precision == "bf16",
        seed=seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    return Trainer(Siamese(network), arguments, Collator(bench.tokenizer, dynamic), train_dataset=rows)


def scorer(bench: Bench) -> Any:
    """A text-classification pipeline on the same backbone, one number per text."""
    network = AutoModelForSequenceClassification.from_pretrained(bench.base, num_labels=1, dtype=torch.float32)
    return pipeline("text-classification", model=network.eval(), tokenizer=bench.tokenizer, device="cpu")


def scores(scorer: Any, rows: pl.DataFrame, batch_size: int) -> np.ndarray:
    """(2 rows,) numbers of the pipeline."""
    texts = [
        {
            "text": "\n".join(turn or "" for turn in row["prompt"]),
            "text_pair": "\n".join(turn or "" for turn in row[side]),
        }
        for row in rows.iter_rows(named=True)
        for side in ("a", "b")
    ]
    found = scorer(texts, batch_size=batch_size, truncation=True, max_length=MAX_TOKENS)
    return np.array([each["score"] for each in found])
