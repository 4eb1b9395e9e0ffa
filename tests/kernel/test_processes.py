"""Which devices the kernel finds, by a driver's tool that tells of eight cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.kernel.faults import Faults
from pipeline.kernel.processes import find_devices


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(f"{number}, GPU-{number}{number}ab-cd, Card, the {number}th" for number in range(8))
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("cards")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [str(number) for number in range(8)]),
        ("3", ["3"]),
        ("5, 2", ["5", "2"]),
        ("GPU-44ab", ["GPU-44ab"]),
        ("1,9,2", ["1"]),
        ("-1", []),
        ("", []),
    ],
)
def test_only_cards_that_are_left_to_us_are_used(
    visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    *found, last = find_devices(Faults({}))
    assert [each.name for each in found] == [f"cuda:{each}" for each in expected]
    digits = [each.name.removeprefix("cuda:").removeprefix("GPU-")[0] for each in found]
    assert [each.model for each in found] == [f"Card, the {digit}th" for digit in digits]
    assert (last.name, last.hardware) == ("cpu", "cpu")


def test_without_a_driver_there_is_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [each.name for each in find_devices(Faults({}))] == ["cpu"]
