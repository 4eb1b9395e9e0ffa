"""The journal: results on disk, appended chunk by chunk, so that a crash of the supervisor loses none of them."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.planning.steps import Step

RECORD = struct.Struct("<II")
"""The number of bytes of a record, and their CRC-32."""


def append(file: Path, step: Step, rows: np.ndarray, values: np.ndarray) -> None:
    """Appends one chunk: values (rows, classes) of the row numbers `rows`. Raises: OSError where there is no room."""
    head = json.dumps([step.member, step.fold, step.which, values.shape[1]]).encode()
    body = struct.pack("<II", len(head), len(rows)) + head
    body += rows.astype("<i8").tobytes() + values.astype("<f8").tobytes()
    with file.open("ab") as stream:
        stream.write(RECORD.pack(len(body), zlib.crc32(body)) + body)


def read(file: Path) -> Iterator[tuple[Step, np.ndarray, np.ndarray]]:
    """Yields (step, row numbers, values) of the whole chunks; the first that is cut off or spoiled ends it."""
    content = file.read_bytes() if file.is_file() else b""
    offset = 0
    while offset + RECORD.size <= len(content):
        size, checksum = RECORD.unpack_from(content, offset)
        body = content[offset + RECORD.size : offset + RECORD.size + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            return
        length, count = struct.unpack_from("<II", body)
        member, fold, which, classes = json.loads(body[8 : 8 + length])
        rows = np.frombuffer(body, "<i8", count, 8 + length)
        values = np.frombuffer(body, "<f8", count * classes, 8 + length + 8 * count).reshape(count, classes)
        yield Step(member, fold, which), rows.astype(np.int64), values.astype(np.float64)
        offset += RECORD.size + size
