"""From texts to token ids, by a tokenizer to which everything in them is text.

Many texts at a time, on the threads that RAYON_NUM_THREADS allows the tokenizers library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import tokenizers

RULES = 1
"""Raised whenever this code makes other ids of the same text."""
BATCH = 1 << 20
"""So many bytes of text are tokenised at a time; each of their tokens takes about a hundred bytes meanwhile."""


@dataclass(frozen=True)
class Plain:
    """A tokenizer to which the name of a special token is text, too: "[SEP]" in somebody's answer is no separator."""

    backend: tokenizers.Tokenizer
    spelled: dict[int, list[int]]
    """Special token -> the ids of its name: the vocabularies of DeBERTa hold the names as pieces, too."""

    def ids(self, texts: pl.Series) -> Iterator[np.ndarray]:
        """Yields the ids of each text, (tokens,) int32."""
        for batch in batches(texts):
            for each in self.backend.encode_batch_fast(batch.to_list(), add_special_tokens=False):
                yield np.array(self._spelled_out(each.ids), dtype=np.int32)

    def key(self) -> str:
        """Returns a hash of everything that ids depend on, but the text."""
        return _key(self.backend, self.backend.get_vocab_size(), json.dumps(self.spelled, sort_keys=True))

    def _spelled_out(self, ids: list[int]) -> list[int]:
        if self.spelled.keys().isdisjoint(ids):
            return ids
        return [part for each in ids for part in self.spelled.get(each, (each,))]


@contextmanager
def plain(tokenizer: Any) -> Iterator[Plain]:
    """Yields the transformers tokenizer `tokenizer` as a Plain one, to be used within the block."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    try:
        spelled = {
            number: [
                part for piece in (token[:1], token[1:]) for part in backend.encode(piece, add_special_tokens=False).ids
            ]
            for number, token in zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
            if number != tokenizer.unk_token_id
        }
        yield Plain(backend, spelled)
    finally:
        backend.encode_special_tokens = False


def batches(texts: pl.Series) -> Iterator[pl.Series]:
    """Yields `texts` in their order, at most BATCH bytes at a time; only the last text of a batch may go beyond."""
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    begins = np.concatenate([[0], ends[:-1]])
    cuts = np.flatnonzero(np.diff(begins // BATCH)) + 1
    for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(texts)], strict=True):
        yield texts[begin:end]


@lru_cache(maxsize=1)
def _key(backend: tokenizers.Tokenizer, size: int, spelled: str) -> str:
    """Is kept for a tokenizer: large ones take a tenth of a second. Tokens may be added, other parts do not change."""
    about = [RULES, tokenizers.__version__, backend.to_str(), spelled]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
