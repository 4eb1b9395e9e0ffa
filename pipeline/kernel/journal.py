"""Results on disk, appended chunk by chunk, so that an accident of the supervisor loses nothing that was computed."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.planning.steps import Step

HEAD = struct.Struct("<II")
"""Bytes of a record, and their CRC-32."""


def append(file: Path, step: Step, rows: np.ndarray, values: np.ndarray) -> None:
    """Adds one chunk: values (rows, classes) for the row numbers `rows`. Raises: OSError where there is no room."""
    about = json.dumps([step.member, step.fold, step.which, values.shape[1]]).encode()
    body = struct.pack("<II", len(about), len(rows)) + about
    body += rows.astype("<i8").tobytes() + values.astype("<f8").tobytes()
    with file.open("ab") as stream:
        stream.write(HEAD.pack(len(body), zlib.crc32(body)) + body)


def read(file: Path) -> Iterator[tuple[Step, np.ndarray, np.ndarray]]:
    """All whole chunks; one that was cut off in the middle ends it."""
    content = file.read_bytes() if file.is_file() else b""
    place = 0
    while place + HEAD.size <= len(content):
        size, checksum = HEAD.unpack_from(content, place)
        body = content[place + HEAD.size : place + HEAD.size + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            return
        told, count = struct.unpack_from("<II", body)
        member, fold, which, classes = json.loads(body[8 : 8 + told])
        rows = np.frombuffer(body, "<i8", count, 8 + told)
        values = np.frombuffer(body, "<f8", count * classes, 8 + told + 8 * count).reshape(count, classes)
        yield Step(member, fold, which), rows.astype(np.int64), values.astype(np.float64)
        place += HEAD.size + size
