"""Token ids of texts: made once for each tokenizer and text, and kept in files that are mapped into memory.

Folds, members, passes and processes share them. Each tokenizer has a folder, named by a hash of all that its ids depend
on. A call adds the texts that are new to it as one file, a shard, which is never changed. It holds int32 numbers only:
the ids of its texts one after the other, the length of each, a hash of each (four numbers; the texts stand in the order
of their hashes), and how many texts there are. Its name is the hash of its bytes: a damaged one is as good as none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import polars as pl
import tokenizers

from pipeline.files import sha256_file

FORMAT = 1
"""Raised whenever this code makes other ids of the same text, or lays them out in another way."""
BATCH = 1 << 20
"""So many bytes of text are tokenised at a time; each of their tokens takes about a hundred bytes meanwhile."""
HASH = "S16"

_given_up: set[Path] = set()
"""Folders that this process could not write to: said once, then left alone."""


def tokens_of(texts: pl.Series, tokenizer: Any, token_cache: Path | None) -> list[np.ndarray]:
    """(tokens,) int32 ids of each text, read-only, without special tokens: the name of one in a text is text.

    `texts` has no nulls. The ids are kept below the folder `token_cache`, or nowhere where that is None. A folder that
    cannot be written costs a warning, and time.
    """
    hashes, first, which = np.unique(_hashes(texts), return_index=True, return_inverse=True)
    found: list[Any] = [None] * len(hashes)
    missing = np.arange(len(hashes))
    with _plain(tokenizer) as plain:
        folder = token_cache / plain.key() if token_cache else None
        for shard in _shards(folder) if folder else ():
            missing = shard.answer(hashes, missing, found)
            if not len(missing):
                break
        if len(missing):
            _made(texts[first[missing]], hashes[missing], plain, folder).answer(hashes, missing, found)
    return [found[place] for place in which.tolist()]


@dataclass(frozen=True)
class _Plain:
    """A tokenizer to which all is text."""

    backend: tokenizers.Tokenizer
    spelled: dict[int, list[int]]
    """Special token -> the ids of its name: the vocabularies of DeBERTa hold the names as pieces, too."""

    def key(self) -> str:
        """A hash of everything that ids depend on, but the text."""
        about = [FORMAT, tokenizers.__version__, self.backend.to_str(), sorted(self.spelled.items())]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]

    def ids(self, texts: list[str]) -> list[np.ndarray]:
        """int32, one array per text."""
        encoded = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(self._spelled_out(each.ids), dtype=np.int32) for each in encoded]

    def _spelled_out(self, ids: list[int]) -> list[int]:
        if self.spelled.keys().isdisjoint(ids):
            return ids
        return [part for each in ids for part in self.spelled.get(each, (each,))]


@contextmanager
def _plain(tokenizer: Any) -> Iterator[_Plain]:
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
        yield _Plain(backend, spelled)
    finally:
        backend.encode_special_tokens = False


@dataclass(frozen=True)
class _Shard:
    """Ids of some texts."""

    hashes: np.ndarray
    """(texts,) in their order."""
    ends: np.ndarray
    """(texts,) int64: where the ids of each end."""
    lengths: np.ndarray
    """(texts,) int32."""
    ids: np.ndarray
    """(tokens,) int32."""

    @classmethod
    def of(cls, numbers: np.ndarray) -> _Shard:
        """The int32 numbers of a file, as the module describes them."""
        texts = int(numbers[-1])
        tokens = len(numbers) - 5 * texts - 1
        ids, lengths, hashes, _ = np.split(numbers, [tokens, tokens + texts, tokens + 5 * texts])
        return cls(hashes.view(HASH), np.cumsum(lengths, dtype=np.int64), lengths, ids)

    def answer(self, hashes: np.ndarray, missing: np.ndarray, found: list[Any]) -> np.ndarray:
        """Puts the ids of those `hashes` that are `missing` (their places) into `found`; returns what still is."""
        places = np.minimum(np.searchsorted(self.hashes, hashes[missing]), len(self.hashes) - 1)
        known = self.hashes[places] == hashes[missing]
        ends = self.ends[places[known]]
        begins = ends - self.lengths[places[known]]
        for place, begin, end in zip(missing[known].tolist(), begins.tolist(), ends.tolist(), strict=True):
            found[place] = self.ids[begin:end]
        return missing[~known]


def _shards(folder: Path) -> Iterator[_Shard]:
    """The whole ones, opened one by one."""
    for file in sorted(folder.glob("*.ids")):
        try:
            facts = file.stat()
            if not _is_whole(file, facts.st_ino, facts.st_size, facts.st_mtime_ns):
                continue
            numbers = np.memmap(file, np.int32, "r")
        except OSError:  # somebody has removed it
            continue
        yield _Shard.of(np.asarray(numbers))


@cache
def _is_whole(file: Path, number: int, size: int, changed: int) -> bool:
    """By its name. A process reads a file for that only once, unless it changes."""
    return sha256_file(file) == file.stem


def _made(texts: pl.Series, hashes: np.ndarray, plain: _Plain, folder: Path | None) -> _Shard:
    """The shard of `texts`, which come in the order of their `hashes`: a file in `folder`, else in memory."""
    if folder is not None and folder not in _given_up:
        try:
            return _Shard.of(np.asarray(np.memmap(_file(texts, hashes, plain, folder), np.int32, "r")))
        except OSError as error:
            _given_up.add(folder)
            print(f"warning: {folder}: token ids are not kept: {error.strerror}", flush=True)
    memory = io.BytesIO()
    _write(texts, hashes, plain, memory)
    return _Shard.of(np.frombuffer(memory.getbuffer().toreadonly(), np.int32))


def _file(texts: pl.Series, hashes: np.ndarray, plain: _Plain, folder: Path) -> Path:
    """Writes the shard into `folder`, whole or not at all, whoever else does so."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid4().hex}.partial"
    try:
        with partial.open("wb") as stream:
            _write(texts, hashes, plain, stream)
        file = folder / f"{sha256_file(partial)}.ids"
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _write(texts: pl.Series, hashes: np.ndarray, plain: _Plain, stream: IO[bytes]) -> None:
    """Batch by batch: only the lengths of all texts are held."""
    lengths: list[int] = []
    for batch in _batches(texts):
        ids = plain.ids(batch.to_list())
        lengths += map(len, ids)
        stream.write(np.concatenate(ids).tobytes())
    stream.write(np.array(lengths, dtype=np.int32).tobytes())
    stream.write(hashes.tobytes())
    stream.write(np.array([len(lengths)], dtype=np.int32).tobytes())


def _batches(texts: pl.Series) -> Iterator[pl.Series]:
    """In their order, each begun before BATCH bytes are exceeded: the last text of one may be longer."""
    ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    begins = np.concatenate([[0], ends[:-1]])
    cuts = np.flatnonzero(np.diff(begins // BATCH)) + 1
    for begin, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(texts)], strict=True):
        yield texts[begin:end]


def _hashes(texts: pl.Series) -> np.ndarray:
    """(texts,) 128 bits of each."""
    each = (hashlib.blake2b(text, digest_size=16).digest() for text in texts.cast(pl.Binary))
    return np.fromiter(each, HASH, len(texts))
