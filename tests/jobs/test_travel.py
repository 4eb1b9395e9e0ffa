"""A remote that is away for a while, and one that stays away."""

from __future__ import annotations

import pytest

from pipeline.errors import PodiumError
from pipeline.jobs import travel


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "WAITS", (0, 0))


def failing(times: int) -> list[int]:
    """The calls so far, of a remote that answers after `times` of them."""
    calls: list[int] = []

    def call() -> None:
        calls.append(len(calls))
        if len(calls) <= times:
            raise OSError("no route\nto host")

    travel.patient(call)
    return calls


def test_a_remote_that_comes_back_is_asked_until_then(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(2) == [0, 1, 2]
    said = capsys.readouterr().out.splitlines()
    assert said == ["DVC's remote: no route to host; it is asked again in 0 s"] * 2


def test_a_remote_that_stays_away_is_one_line(quick: None) -> None:
    with pytest.raises(PodiumError, match=r"^DVC's remote: no route to host; it was asked 3 times$"):
        failing(3)
