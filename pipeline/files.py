"""Files that are either whole or absent: everything is written under a temporary name, then moved into place."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import PodiumError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it replaces `path`, on any error it is removed."""
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`; on success it replaces `path`, on any error it is removed."""
    partial = _partial(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    """Returns this process's temporary path beside `path`, and removes those of processes that have been killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*.partial"):
        process = left.name.removesuffix(".partial").rpartition(".")[2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            _remove(left)
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, where: str, does: str) -> Iterator[None]:
    """Holds the lock file `path`, which says who holds it, for the time of the body.

    Raises: PodiumError where another process holds it; `where` and `does` are as in `already`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise PodiumError(already(where, lock.read().strip(), does, path.stat().st_mtime)) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def already(where: str, process: int | str, does: str, since: float) -> str:
    """Returns a sentence: `words-fold0: process 12 is training it already, since 2026-03-01 12:00:00`."""
    return f"{where}: process {process} {does} already, since {datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S}"


def remove_partials(path: Path) -> None:
    """Removes what killed processes have left of `path`; for those who know that nobody else is writing it."""
    for partial in path.parent.glob(f".{escape(path.name)}.*.partial"):
        _remove(partial)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON with a final newline; floats keep every digit."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The parsed JSON of `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Writes a parquet file, whole or not at all."""
    buffer = io.BytesIO()
    # Through memory: where the disk fills up while polars writes, its error does not say so, Python's does.
    frame.write_parquet(buffer, compression="zstd")
    with atomic_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def link(source: Path, target: Path) -> None:
    """Gives the bytes of a file a second name; copies them where the file systems differ, or know no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)  # a link to a link would break with it
    except OSError:
        shutil.copy2(source, target)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_watched(folder: Path) -> None:
    """Raises PodiumError for what DVC, which reads all that lies in `folder`, fails on, or waits for without end."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                name.encode()
            except UnicodeEncodeError:
                told = f"{place}: {name!a}: DVC reads names in UTF-8 alone; rename it, or move it away"
                raise PodiumError(told) from None
        for name in files:
            if not (file := Path(place) / name).is_file():
                raise PodiumError(f"{file}: expected a file, found a link to nothing, a pipe or a socket; move it away")
