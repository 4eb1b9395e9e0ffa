"""Results on disk: what was whole comes back, whatever happened to the end of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernel import journal
from pipeline.planning.steps import Step


def write(file: Path, count: int) -> list[tuple[Step, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(count)
    found = []
    for number in range(count):
        rows = rng.choice(100, size=number + 1, replace=False)
        values = rng.dirichlet(np.ones(3), size=number + 1)
        values[0, 0] = np.nan
        found.append((Step(f"member {number}", number, "swap" if number % 2 else "first"), rows, values))
        journal.append(file, *found[-1])
    return found


def same(found: list, expected: list) -> bool:
    return len(found) == len(expected) and all(
        a[0] == b[0] and np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2], equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    )


@given(st.integers(0, 6), st.integers(0, 400))
def test_a_torn_file_gives_all_whole_chunks(tmp_path_factory: pytest.TempPathFactory, count: int, torn: int) -> None:
    file = tmp_path_factory.mktemp("journal") / "results"
    written = write(file, count)
    assert same(list(journal.read(file)), written)
    if count:
        content = file.read_bytes()
        file.write_bytes(content[: max(0, len(content) - torn)])
        back = list(journal.read(file))
        assert same(back, written[: len(back)])
        assert torn == 0 or len(back) < count


def test_a_spoiled_byte_ends_the_reading(tmp_path: Path) -> None:
    file = tmp_path / "results"
    written = write(file, 3)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert same(list(journal.read(file)), written[:2])


def test_no_file_is_no_results(tmp_path: Path) -> None:
    assert list(journal.read(tmp_path / "none")) == []
