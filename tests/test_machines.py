"""Kaggle's machines: every name is whole, and a name that is none says which there are."""

from __future__ import annotations

import re

import pytest

from pipeline.config import Package
from pipeline.errors import PodiumError
from pipeline.machines import CARDS, MACHINES, card_of
from pipeline.validation import validated


def test_every_machine_has_a_card_and_a_shape_of_its_own() -> None:
    assert all(machine.card in CARDS and bool(machine.shape) == machine.gpu for machine in MACHINES.values())
    assert len({machine.shape for machine in MACHINES.values()}) == len(MACHINES)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "gpu"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000"),
        ("Tesla P100-PCIE-16GB", "gpu"),
        ("cpu:1", "cpu"),
    ],
)
def test_a_card_is_known_by_the_name_that_it_gives_itself(name: str, card: str) -> None:
    assert card_of(name) == card


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("t4x3", 'did you mean "t4x2"?'),
        ("p100", "Kaggle has retired it and runs t4x2 in its place"),
        ("tpu_v5e8", "Podium computes on no TPU"),
        ("t4", "Kaggle lends no single one, t4x2 is the machine"),
    ],
)
def test_another_name_is_refused_with_the_list(name: str, why: str) -> None:
    given = {"owner": "me", "slug": "some-package", "title": "Some package", "budget_seconds": 600, "machine": name}
    expected = f"params.yaml: package: machine: expected one of {', '.join(MACHINES)}"
    with pytest.raises(PodiumError, match=f'{re.escape(expected)}.*{re.escape(why)}.*found "{name}"') as caught:
        validated(Package, given, "params.yaml: package")
    assert "\n" not in str(caught.value)
