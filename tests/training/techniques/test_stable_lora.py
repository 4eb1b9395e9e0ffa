"""Stable-LoRA: A shrinks by its share until B has caught up, on every base, and a killed run knows how far it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import CPU, fitted, furthest
from networks import decoder
from support import preference_rows

from pipeline.competitions.task import Competition
from pipeline.inference.network_member import encoded_rows
from pipeline.members.decoder import adapted_base
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import decoder_network
from pipeline.settings.techniques import StableLora
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.gradients import Learner
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.techniques.stable_lora import Shrinkage

NAME = "layers.0.q.lora_{}.default.weight"


def pair(wide: int = 6, tall: int = 4, rank: int = 2) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        NAME.format("A"): torch.randn(rank, wide, generator=draw),
        NAME.format("B"): torch.zeros(tall, rank),
        "head.weight": torch.randn(3, 4, generator=draw),
    }


@given(st.floats(0, 0.5), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_falls_as_a_power_and_nothing_else_moves(shrink: float, steps: int) -> None:
    weights = pair()
    before = {name: each.clone() for name, each in weights.items()}
    shrinkage = Shrinkage(weights, StableLora(shrink=shrink))
    for _ in range(steps):
        shrinkage.update()
    a = NAME.format("A")
    assert torch.allclose(weights[a], before[a] * (1 - shrink) ** steps, rtol=1e-4, atol=1e-7)
    assert all(torch.equal(weights[name], before[name]) for name in before if name != a)
    assert set(shrinkage.going) == {a}


def test_it_ends_where_b_has_caught_up_and_does_not_begin_again() -> None:
    weights = pair(wide=6, tall=4, rank=2)
    a, b = weights[NAME.format("A")], weights[NAME.format("B")]
    shrinkage = Shrinkage(weights, StableLora(shrink=0.1))
    b.fill_(1.0)
    b.mul_(a.norm() / b.norm() / (12 / 8) * 0.99)  # a little below the end: |A| / |B| is 12 / 8
    before = a.clone()
    shrinkage.update()
    assert torch.allclose(a, 0.9 * before)
    shrinkage.update()  # now A lies below
    ended = a.clone()
    b.zero_()
    shrinkage.update()
    assert torch.equal(a, ended) and torch.allclose(a, 0.9 * before)


def learner_on(backbones: Path, competition: Competition, precision: str, **training: Any) -> Learner:
    asked = decoder({"epochs": 3, "dropout": 0.1} | training, precision, lora={"rank": 4})
    folder = backbones / "backbones" / "llama"
    torch.manual_seed(0)
    network = decoder_network(adapted_base(folder, asked, "cpu"), asked, competition)
    rows, tokenizer = preference_rows(16), load_tokenizer(folder)
    encoded = encoded_rows(rows, asked, tokenizer, competition)
    labels = rows["label"].to_numpy().astype(np.int64)
    learned = Supervised(encoded, labels, competition.family, tokenizer.pad_token_id, "cpu", 8, 1024, 0.0, 0)
    return Learner(network.train(), learned, asked.training, CPU, CPU.scaler())


def learned(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: each.detach() for name, each in learner.network.named_parameters() if each.requires_grad}


class Killed(BaseException):
    """As if the process had been killed."""


SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in ("fp32", "int8")]


@pytest.mark.parametrize("precision", ["bf16", "nf4", *SLOW])
def test_on_every_base_a_run_shrinks_and_goes_on_after_a_kill_to_the_last_bit(
    precision: str, backbones: Path, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    shrinking = {"stable_lora": {"shrink": 0.3}}
    plain, still = (learner_on(backbones, lmsys, precision, **each) for each in ({}, {"stable_lora": {"shrink": 0.0}}))
    started = learned(learner_on(backbones, lmsys, precision))
    for name, each in (("plain", plain), ("still", still)):
        fitted(each, tmp_path / name)
    assert furthest(learned(plain), learned(still)) == 0.0
    alone = learner_on(backbones, lmsys, precision, **shrinking)
    record = fitted(alone, tmp_path / "alone").record
    mine, others = learned(alone), learned(plain)
    shrunk = [name for name in mine if "lora_A" in name]
    assert shrunk and all(mine[name].norm() < 0.5 * others[name].norm() for name in shrunk)
    assert all(others[name].norm() > 0.8 * started[name].norm() for name in shrunk)

    own, count = Checkpoint.save, iter(range(99))

    def save(self: Checkpoint, *given: Any) -> None:
        own(self, *given)
        if next(count) == 2:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(Killed):
        fitted(learner_on(backbones, lmsys, precision, **shrinking), tmp_path / "again")
    again = learner_on(backbones, lmsys, precision, **shrinking)
    assert fitted(again, tmp_path / "again").record == record
    assert furthest(learned(again), mine) == 0.0


def test_a_killed_run_knows_what_shrinks_no_more(
    backbones: Path, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint holds it: with everything ended in it, the steps that are left shrink nothing."""
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    own, count = Checkpoint.save, iter(range(99))

    def save(self: Checkpoint, name: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        ended = {key: torch.zeros_like(each) for key, each in tensors.items() if key.startswith("shrinking ")}
        assert ended
        own(self, name, tensors | ended, facts)
        if next(count) == 0:
            raise Killed

    kept = learner_on(backbones, lmsys, "fp32", stable_lora={"shrink": 0.3})
    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(Killed):
        fitted(kept, tmp_path / "run")
    after = {name: each.clone() for name, each in learned(kept).items()}
    monkeypatch.setattr(Checkpoint, "save", own)
    again = learner_on(backbones, lmsys, "fp32", stable_lora={"shrink": 0.3})
    fitted(again, tmp_path / "run")
    assert all(
        float(each.norm()) > 0.9 * float(after[name].norm()) for name, each in learned(again).items() if "_A" in name
    )
