"""Which devices the kernel finds, by a driver's tool that tells of eight cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PodiumError
from pipeline.kernel.faults import Faults
from pipeline.kernel.processes import check_machine, find_devices
from pipeline.machines import CARDS, MACHINES
from pipeline.planning.cost import WorkerDevice


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


def lent(machine: str) -> list[WorkerDevice]:
    """The devices that a kernel finds on one of Kaggle's machines."""
    card = CARDS[MACHINES[machine].card].says
    return [*(WorkerDevice(f"cuda:{n}", card) for n in range(MACHINES[machine].count)), WorkerDevice("cpu", "cpu")]


@pytest.mark.parametrize("asked", MACHINES)
@pytest.mark.parametrize("got", MACHINES)
def test_another_machine_than_asked_for_is_noticed(asked: str, got: str) -> None:
    if asked == got:
        check_machine(asked, lent(got))
        return
    with pytest.raises(PodiumError, match=f"package.machine: asked Kaggle for {asked}, found ") as caught:
        check_machine(asked, lent(got))
    assert "\n" not in str(caught.value)
