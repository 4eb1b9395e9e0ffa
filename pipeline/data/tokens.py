"""Token ids of texts: made once for each tokenizer and text, and kept in files that are mapped into memory.

Folds, members, passes and processes share them. Each tokenizer has a folder, named by a hash of all that its ids depend
on. A call adds the texts that are new to it as one file, a shard, which is never changed. It holds int32 numbers only:
the ids of its texts one after the other, the length of each, a hash of each (four numbers; the texts stand in the order
of their hashes), and how many texts there are. Its name is the hash of its bytes: a damaged one is as good as none.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import polars as pl

from pipeline.data.tokenise import Plain, plain
from pipeline.files import sha256_file

FORMAT = 1
"""Raised whenever shards are laid out in another way."""
MOST = 32
"""Shards of a tokenizer; one more, and all become one: a kernel's worker adds one with every few rows."""
HASH = "S16"

_given_up: set[Path] = set()
"""Folders that this process could not write to: said once, then left alone."""


def tokens_of(texts: pl.Series, tokenizer: Any, token_cache: Path | None) -> list[np.ndarray]:
    """Returns the ids of each text, (tokens,) int32, read-only; the name of a special token in a text is text.

    `texts` has no nulls. The ids are kept below the folder `token_cache`, or nowhere where that is None. A folder that
    cannot be written costs a warning, and time.
    """
    hashes, first, which = np.unique(_hashes(texts), return_index=True, return_inverse=True)
    found: list[Any] = [None] * len(hashes)
    missing = np.arange(len(hashes))
    with plain(tokenizer) as tokenise:
        folder = token_cache / f"{tokenise.key()}-{FORMAT}" if token_cache else None
        for _, shard in _shards(folder) if folder else ():
            missing = shard.answer(hashes, missing, found)
            if not len(missing):
                break
        if len(missing):
            _made(texts[first[missing]], hashes[missing], tokenise, folder).answer(hashes, missing, found)
    return [found[place] for place in which.tolist()]


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
        """Returns the shard in the int32 numbers of a file, as the module describes them."""
        numbers = np.asarray(numbers)  # slices of a memmap are slow
        texts = int(numbers[-1])
        tokens = len(numbers) - 5 * texts - 1
        lengths, hashes = numbers[tokens : tokens + texts], numbers[tokens + texts : -1].view(HASH)
        return cls(hashes, np.cumsum(lengths, dtype=np.int64), lengths, numbers[:tokens])

    def answer(self, hashes: np.ndarray, missing: np.ndarray, found: list[Any]) -> np.ndarray:
        """Puts the ids of those `hashes` that are `missing` (their places) into `found`; returns what still is."""
        places = np.minimum(np.searchsorted(self.hashes, hashes[missing]), len(self.hashes) - 1)
        known = self.hashes[places] == hashes[missing]
        ends = self.ends[places[known]]
        begins = ends - self.lengths[places[known]]
        for place, begin, end in zip(missing[known].tolist(), begins.tolist(), ends.tolist(), strict=True):
            found[place] = self.ids[begin:end]
        return missing[~known]


def _shards(folder: Path) -> Iterator[tuple[Path, _Shard]]:
    """Yields the whole ones, opened one by one."""
    for file in sorted(folder.glob("*.ids")):
        try:
            facts = file.stat()
            if not _is_whole(file, facts.st_ino, facts.st_size, facts.st_mtime_ns):
                continue
            numbers = np.memmap(file, np.int32, "r")
        except OSError:  # somebody has removed it
            continue
        yield file, _Shard.of(numbers)


@cache
def _is_whole(file: Path, number: int, size: int, changed: int) -> bool:
    """Compares bytes and name. A process reads a file for that only once, unless it changes."""
    return sha256_file(file) == file.stem


def _made(texts: pl.Series, hashes: np.ndarray, tokenise: Plain, folder: Path | None) -> _Shard:
    """Returns the shard of `texts`, which come in the order of their `hashes`: a file in `folder`, else in memory."""
    if folder is not None and folder not in _given_up:
        try:
            _, shard = _kept(tokenise.ids(texts), hashes, folder)
            if len(list(folder.glob("*.ids"))) > MOST:
                _merge(folder)
            return shard
        except OSError as error:
            _given_up.add(folder)
            print(f"warning: {folder}: token ids are not kept: {error.strerror}", flush=True)
    memory = io.BytesIO()
    _write(tokenise.ids(texts), hashes, memory)
    return _Shard.of(np.frombuffer(memory.getbuffer().toreadonly(), np.int32))


def _merge(folder: Path) -> None:
    """Makes one shard of all that there are. Who has one of them open keeps it."""
    shards = dict(_shards(folder))
    if not shards:  # somebody else has just done it
        return
    hashes = np.unique(np.concatenate([each.hashes for each in shards.values()]))
    found: list[Any] = [None] * len(hashes)
    missing = np.arange(len(hashes))
    for shard in shards.values():
        missing = shard.answer(hashes, missing, found)
    merged, _ = _kept(found, hashes, folder)
    for file in shards:
        if file != merged:
            file.unlink(missing_ok=True)


def _kept(ids: Iterable[np.ndarray], hashes: np.ndarray, folder: Path) -> tuple[Path, _Shard]:
    """Writes a shard into `folder`, whole or not at all, whoever else does so."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid4().hex}.partial"
    try:
        with partial.open("wb") as stream:
            _write(ids, hashes, stream)
        # Opened before others see it: they may merge and remove it at once.
        shard = _Shard.of(np.memmap(partial, np.int32, "r"))
        file = folder / f"{sha256_file(partial)}.ids"
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return file, shard


def _write(ids: Iterable[np.ndarray], hashes: np.ndarray, stream: IO[bytes]) -> None:
    """Writes text by text, so that only their lengths are held."""
    lengths: list[int] = []
    for each in ids:
        stream.write(each.data)
        lengths.append(len(each))
    stream.write(np.array(lengths, dtype=np.int32).tobytes())
    stream.write(hashes.tobytes())
    stream.write(np.array([len(lengths)], dtype=np.int32).tobytes())


def _hashes(texts: pl.Series) -> np.ndarray:
    """Returns 128 bits of each text, (texts,)."""
    each = (hashlib.blake2b(text, digest_size=16).digest() for text in texts.cast(pl.Binary))
    return np.fromiter(each, HASH, len(texts))
