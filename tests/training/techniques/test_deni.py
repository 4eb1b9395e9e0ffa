"""The delayed ensemble: when its children train, what noise they get, how they are merged, and that they differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import fitted, furthest
from networks import decoder, encoder, ready, start_of
from support import preference_rows
from torch import Tensor, nn

from pipeline.artifacts import Artifacts
from pipeline.competitions.family import Categorical
from pipeline.competitions.task import Competition
from pipeline.data.split import Split
from pipeline.errors import PodiumError
from pipeline.inference.predict import predict_member
from pipeline.kinds import KINDS
from pipeline.members.context import Run
from pipeline.models.saved import read_member
from pipeline.models.voting import VOTERS, Committee, with_voters
from pipeline.settings.techniques import Deni
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.gradients import Learner
from pipeline.training.techniques import deni as module
from pipeline.training.techniques.deni import Children, noisy, phases, updates

PUBLISHED = Deni()
SMALL = {"children": 3, "begin": 0.2, "end": 0.8, "alone": 0.2, "together": 0.2, "ensemble": 0.8}


def test_the_published_schedule_costs_what_it_is_said_to_cost() -> None:
    """1,250 steps: 4,634 updates, 37.1 % of ten runs."""
    assert updates(1250, PUBLISHED) == 4634
    assert [(each.first, each.last, each.votes) for each in phases(1250, PUBLISHED)] == [
        (374, 499, False), (624, 749, False), (1124, 1250, True),
    ]  # fmt: skip


@given(
    st.integers(5, 3000), st.floats(0, 0.8), st.floats(0.05, 1), st.floats(0.01, 0.5), st.floats(0.01, 0.5),
    st.floats(0.1, 0.95),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_phases_do_not_overlap_and_the_last_one_ends_the_run(
    total: int, begin: float, end: float, alone: float, together: float, ensemble: float
) -> None:
    found = phases(total, Deni(begin=begin, end=end, alone=alone, together=together, ensemble=ensemble))
    assert [each.votes for each in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].last == total and found[-1].first < total
    places = [0] + [place for each in found for place in (each.first, each.last)]
    assert places == sorted(places)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    return {name: each for name, each in learner.network.named_parameters() if each.requires_grad}


def family(learner: Learner) -> Children:
    plan = [step for epoch in range(learner.settings.epochs) for step in learner.objective.epoch(epoch)]
    return Children(learner, weights_of(learner), plan, lambda step: 3e-3)


def values(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in weights.items()}


def test_noise_has_its_variance_and_no_other_stream_notices(made: Any) -> None:
    learner = made(epochs=5, deni=SMALL)
    deni = family(learner)
    big = nn.Parameter(torch.randn(1000, 1000) * 3)
    deni.weights, deni.noisy = {"big": big, "one": nn.Parameter(torch.ones(1))}, ["big", "one"]
    before, state = big.detach().clone(), torch.get_rng_state()
    deni._add_noise(deni.phases[-1], 1)
    assert torch.equal(torch.get_rng_state(), state)
    noise = big.detach() - before
    assert float(noise.std()) == pytest.approx(math.sqrt(0.15) * float(before.std()), rel=0.01)
    assert float(deni.weights["one"]) == 1.0  # a single number has no spread
    big.data.copy_(before)
    phase = module.Phase(99, 120, votes=False)
    deni._add_noise(phase, 1)
    assert float((big.detach() - before).std()) == pytest.approx(math.sqrt(0.15 / 100) * float(before.std()), rel=0.01)


def test_the_head_gets_the_noise_or_everything_of_adapters(made: Any) -> None:
    full, lora = made(), made("decoder")
    assert noisy(full.network, weights_of(full), "auto") == noisy(full.network, weights_of(full), "head")
    assert all(name.startswith("head.") for name in noisy(full.network, weights_of(full), "auto"))
    assert noisy(lora.network, weights_of(lora), "auto") == list(weights_of(lora))
    assert all(name.startswith("head.") for name in noisy(lora.network, weights_of(lora), "head"))


def test_without_noise_children_of_the_same_draws_are_one_and_the_merge_changes_nothing(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "seed_of", lambda *numbers: 5)
    learner = made(epochs=5, deni=SMALL | {"variance": 0.0}, dropout=0.1)
    deni = family(learner)
    deni.before(deni.phases[-1].first)
    assert len(deni.voters) == 3
    assert furthest(deni.voters[0], deni.voters[1]) == furthest(deni.voters[0], deni.voters[2]) == 0.0
    deni = family(learner)
    deni.before(deni.phases[0].first)
    own = values(deni.mean)
    with torch.no_grad():
        for name, each in deni.weights.items():
            each.copy_(own[name])
    deni.after(deni.phases[0].last - 1)
    assert furthest(values(deni.weights), own) < 1e-6 and deni.mean == {}


def test_a_merge_is_the_arithmetic_mean(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = made(epochs=5, deni=SMALL)
    deni = family(learner)
    ends: list[dict[str, Tensor]] = []
    own = Children._join
    monkeypatch.setattr(Children, "_join", lambda self, child: (ends.append(values(self.weights)), own(self, child))[1])
    start = values(deni.weights)
    deni.before(deni.phases[0].first)
    assert furthest(values(deni.weights), start) == 0.0  # the network has not moved yet
    assert all(each.grad is None for each in deni.weights.values())
    deni.after(deni.phases[0].last - 1)
    assert len(ends) == 3
    for name, each in deni.weights.items():
        wanted = torch.stack([*(end[name] for end in ends), start[name]]).mean(dim=0)
        assert torch.allclose(each, wanted, atol=1e-6), name


def test_at_spawn_no_weight_of_the_backbone_changes(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = made(epochs=5, deni=SMALL)
    deni, seen = family(learner), []
    start = values(deni.weights)
    monkeypatch.setattr(Children, "_train", lambda self, phase, child: seen.append(values(self.weights)))
    deni.before(deni.phases[-1].first)
    for child in seen:
        changed = {name for name in start if not torch.equal(child[name], start[name])}
        assert changed and all(name.startswith("head.") for name in changed)
    assert furthest(seen[0], seen[1]) > 0


@pytest.mark.parametrize(("policy", "rates"), [("schedule", [3e-3]), ("peak", [3e-3])])
def test_children_train_at_the_documented_rate(
    policy: str, rates: list[float], made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = made(epochs=5, deni=SMALL | {"rate": policy})
    deni = family(learner)
    deni.rate_at = lambda step: 1e-3 / (step + 1)
    used: list[float] = []
    own = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *given: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return own(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    phase = deni.phases[-1]
    deni.before(phase.first)
    expected = [1e-3 / (each + 1) if policy == "schedule" else 3e-3 for each in range(phase.first, phase.last)]
    assert used == pytest.approx(expected * 3)


def test_a_childs_step_that_an_overflow_costs_does_not_move_its_schedule(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deni = family(made(epochs=5, deni=SMALL | {"children": 1}))
    deni.rate_at = lambda step: 1e-3 / (step + 1)
    used: list[float] = []
    own = module.step

    def step(*given: Any) -> Any:
        used.append(given[3])
        return own(*given)._replace(overflow=torch.tensor([float(len(used) == 1)]))

    monkeypatch.setattr(module, "step", step)
    phase = deni.phases[-1]
    deni.before(phase.first)
    assert used == [deni.rate_at(each) for each in (phase.first, *range(phase.first, phase.last - 1))]
    assert len(used) > 2


def test_a_run_of_the_loop_makes_the_updates_that_were_counted(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, count = made(epochs=5, deni=SMALL), [0]
    own = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *given: Any) -> Any:
        count[0] += 1
        return own(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    voters = fitted(learner, tmp_path).voters
    assert count[0] == updates(10, learner.settings.deni) > 10
    everyone = [*voters, values(weights_of(learner))]
    assert len(everyone) == 4
    for one in range(4):
        for other in range(one):
            assert furthest(everyone[one], everyone[other]) > 0


class Killed(BaseException):
    """As if the process had been killed."""


@pytest.mark.parametrize("save", [1, 3, 5, 7, 9])
def test_killed_in_any_phase_it_ends_as_if_left_alone(
    save: int, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    everything = {"epochs": 5, "deni": SMALL, "dropout": 0.1}

    def ended(folder: Path) -> list[dict[str, Tensor]]:
        learner = made(**everything)
        return [*fitted(learner, folder).voters, values(weights_of(learner))]

    alone = ended(tmp_path / "alone")
    own, count = Checkpoint.save, iter(range(99))

    def stopped(self: Checkpoint, *given: Any) -> None:
        own(self, *given)
        if next(count) == save:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Checkpoint, "save", stopped)
        ended(tmp_path / "again")
    again = ended(tmp_path / "again")
    assert len(alone) == len(again) == 4
    assert all(furthest(*pair) == 0.0 for pair in zip(alone, again, strict=True))


class Biased(nn.Module):
    """The same logits for every row."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.inner.logits.expand(len(input_ids), -1)  # type: ignore[operator]


def test_a_committee_answers_with_the_mean_probability() -> None:
    answers = [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [-1.0, 0.5, 0.0]]
    network = Biased(answers[0])
    committee = Committee(network, [{"inner.logits": torch.tensor(each)} for each in answers[1:]], Categorical(3))
    found = committee(torch.zeros(2, 4), torch.ones(2, 4)).exp()
    assert torch.allclose(found, torch.tensor(answers).softmax(1).mean(0).expand(2, -1), atol=1e-6)
    assert torch.equal(network.inner.logits, torch.tensor(answers[0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_saved_member_votes_as_the_trained_one(
    kind: str, tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(40)
    artifacts = Artifacts(ready(tmp_path, rows, lmsys, np.repeat([0, 1], [8, 32]), backbones))
    folders, found = {}, {}
    for answer in ("vote", "main"):
        # Of a run from the prior's answers twelve steps say too little: the guard would give it up, and nobody vote.
        training = {"deni": SMALL | {"answer": answer}, "epochs": 3, "prior_start": False}
        settings = encoder(training) if kind == "encoder" else decoder(training)
        start = start_of(f"mine{answer}", settings, lmsys, artifacts.root)
        folders[answer] = artifacts.model(f"mine{answer}", 0)
        folders[answer].mkdir(parents=True)
        run = Run("mine", artifacts, Checkpoint(tmp_path / answer))
        KINDS[kind].train()(Split(rows[8:], rows[:8], rows[:0]), start, folders[answer], run)
        found[answer] = predict_member(folders[answer], artifacts, rows[:8], lmsys)
    voters = {answer: read_member(folder).facts["voters"] for answer, folder in folders.items()}
    assert voters == {"vote": 3, "main": 0}
    assert (folders["vote"] / VOTERS).is_file() and not (folders["main"] / VOTERS).exists()
    difference = np.abs(found["vote"] - found["main"]).max()
    assert difference > 1e-5  # three others have spoken
    assert np.allclose(found["vote"].sum(axis=1), 1.0, atol=1e-6)


def test_voters_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = Biased([0.0, 1.0])
    assert with_voters(network, tmp_path, 0, Categorical(3)) is network
    with pytest.raises(PodiumError, match=r"voters\.safetensors: not readable"):
        with_voters(network, tmp_path, 2, Categorical(3))
    from pipeline.models.voting import save_voters

    save_voters([{"inner.logits": torch.zeros(2)}], torch.float16, tmp_path)
    with pytest.raises(PodiumError, match=r"voters\.safetensors: expected 2 voters, found 1"):
        with_voters(network, tmp_path, 2, Categorical(3))
    save_voters([{"inner.logits": torch.zeros(3)}], None, tmp_path)
    with pytest.raises(PodiumError, match=r"voters\.safetensors: does not fit its network: 0 inner\.logits"):
        with_voters(network, tmp_path, 1, Categorical(3))


def test_voters_compute_in_their_networks_precision(tmp_path: Path) -> None:
    from pipeline.models.voting import save_voters

    save_voters([{"inner.logits": torch.ones(2)}], None, tmp_path)
    for dtype in (torch.float16, torch.float32):
        committee = with_voters(Biased([0.0, 1.0]).to(dtype), tmp_path, 1, Categorical(2))
        assert {each.dtype for each in committee.buffers()} == {dtype}
