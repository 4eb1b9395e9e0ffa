"""An error is one line, whatever a user has written into names and cells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import NoMemoryError, PodiumError, ran_out


@given(st.text("a\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029 é"))
def test_a_line_break_is_told_as_an_escape(text: str) -> None:
    said = str(PodiumError(f"classes: {text}."))
    assert len(said.splitlines()) == 1
    assert said == f"classes: {text}." if len(f"{text}.".splitlines()) == 1 else "\\" in said


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (NoMemoryError("one row"), True),
        (OutOfMemoryError("on a GPU"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes do not fit in memory order"), False),
        (ValueError("out of memory"), False),
        (PodiumError("x.csv: out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_told_from_memory_that_was_misused(error: Exception, expected: bool) -> None:
    assert ran_out(error) == expected
