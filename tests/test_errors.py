"""An error is one line, whatever a user has written into names and cells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PodiumError


@given(st.text("a\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029 é"))
def test_a_line_break_is_told_as_an_escape(text: str) -> None:
    said = str(PodiumError(f"classes: {text}."))
    assert len(said.splitlines()) == 1
    assert said == f"classes: {text}." if len(f"{text}.".splitlines()) == 1 else "\\" in said
