from __future__ import annotations

import pytest

from pipeline.training import progress


def test_without_a_terminal_it_writes_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(progress.track(["a", "b", "c"], "work")) == ["a", "b", "c"]
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["work: 2/3 in 12 s, 6 s left", "work: 3/3 in 24 s"]


def test_an_unknown_length_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(iter([1, 2]), "work")) == [1, 2]
    assert "2/2" in capsys.readouterr().out
