"""Before training: networks that cannot tell texts apart, or do not read them to their end, and all the sound ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fold_models import FOLDS, ROWS
from learners import learner_of
from networks import decoder, encoder, ready, start_of
from support import error_line, preference_rows, run_module
from torch import Tensor, nn

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import split_rows
from pipeline.data.text import Encoded
from pipeline.errors import PodiumError
from pipeline.members.fold import train_fold
from pipeline.models.heads import Pooling
from pipeline.training import restarts
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.pooled_check import check_pooled_states

POOLINGS = [("encoder", "mean"), ("encoder", "cls"), ("encoder", "attention"), ("decoder", "last"), ("decoder", "mean")]


def network_and_rows(backbones: Path, competition: Competition, kind: str, pooling: str) -> tuple[Any, Supervised]:
    learner = learner_of(backbones, competition, kind, 4096, 12, {})
    network: Any = learner.network
    network.pooling = Pooling(pooling, network.backbone.config.hidden_size)
    assert isinstance(learner.objective, Supervised)
    return network, learner.objective


def reading(learned: Supervised, ids: list[list[int]]) -> Supervised:
    """The same objective with these sequences, two per row."""
    sequences = [np.array(each, dtype=np.int32) for each in ids]
    return replace(learned, encoded=Encoded(sequences, 2, {}, np.zeros(len(ids) // 2, dtype=bool)))


SOUND: dict[str, list[list[int]]] = {
    "one row": [[1, 20, 30, 2], [1, 40, 2]],
    "identical rows": [[1, 20, 30, 2]] * 6,
    "texts of one token": [[5], [6], [7], [5]],
    "one token again and again": [[5], [5, 5], [5, 5, 5], [5]],
    "nearly equal and long": [[1, *range(20, 200), 2], [1, 21, *range(21, 200), 2]] * 4,
    "equal but for their ends": [[1, *range(20, 100), last] for last in range(20, 28)],
}


@pytest.mark.parametrize(("kind", "pooling"), POOLINGS)
def test_a_sound_network_passes_on_any_texts_and_no_number_is_drawn(
    kind: str, pooling: str, backbones: Path, lmsys: Competition
) -> None:
    network, learned = network_and_rows(backbones, lmsys, kind, pooling)
    weights = {name: each.clone() for name, each in network.state_dict().items()}
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    for objective in (learned, *(reading(learned, ids) for ids in SOUND.values())):
        check_pooled_states(network, objective, "x")
        with torch.autocast("cpu", torch.bfloat16):
            check_pooled_states(network, objective, "x")
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    assert all(torch.equal(each, weights[name]) for name, each in network.state_dict().items())
    assert all(each.grad is None for each in network.parameters())


class At(nn.Module):
    """Takes the state at a place that `where` finds from the mask."""

    kind = "last"

    def __init__(self, where: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.where = where

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return states[torch.arange(len(states)), self.where(mask)]


FAULTS: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    # The first token alone, before which a causal network knows nothing.
    ("the beginning", lambda mask: torch.zeros(len(mask), dtype=torch.long), "different texts have the same pooled"),
    # As where the first padding id is looked for, and turns end with it.
    ("within the prompt", lambda mask: mask.sum(dim=1) // 2, "the last token of 8 of 8 texts does not reach"),
    ("one too early", lambda mask: mask.sum(dim=1) - 2, "the last token of 8 of 8 texts does not reach"),
    ("one row only", lambda mask: mask.sum(dim=1) - 1 - (torch.arange(len(mask)) == 3).long(), "token of 1 of 8 texts"),
]


@pytest.mark.parametrize(("where", "expected"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_a_pooled_place_before_the_end_is_one_line(
    where: Callable[[Tensor], Tensor], expected: str, backbones: Path, lmsys: Competition
) -> None:
    network, learned = network_and_rows(backbones, lmsys, "decoder", "last")
    network.pooling = At(where)
    with pytest.raises(PodiumError) as caught:
        check_pooled_states(network, learned, "judge fold 0")
    assert str(caught.value).startswith("judge fold 0: before training, ") and expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_weights_that_tell_nothing_apart_are_one_line(pooling: str, backbones: Path, lmsys: Competition) -> None:
    network, learned = network_and_rows(backbones, lmsys, "encoder", pooling)
    for each in network.backbone.parameters():
        each.data.zero_()
    with pytest.raises(PodiumError, match=rf"8 different texts have the same pooled state \(pooling {pooling}\)"):
        check_pooled_states(network, learned, "x")


def test_what_stands_behind_the_end_is_not_asked_of_a_network_of_ones_own() -> None:
    check_pooled_states(nn.Linear(1, 1), SimpleNamespace(), "x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        encoder(input="joint", training={"dropout": 0.1}),
        decoder(input="siamese"),
        pytest.param(encoder(training={"dropout": 0.1}), marks=pytest.mark.slow),
        pytest.param(decoder(), marks=pytest.mark.slow),
    ],
)
def test_every_member_is_asked_once_and_learns_the_same(
    settings: Any, backbones: Path, lmsys: Competition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts = Artifacts(ready(tmp_path, preference_rows(ROWS), lmsys, FOLDS, backbones))
    split = split_rows(artifacts.train().collect(), artifacts.folds(), 0)
    start = start_of("mine", settings, lmsys, artifacts.root)
    asked: list[int] = []

    def counted(network: nn.Module, learned: Supervised, label: str) -> None:
        asked.append(learned.encoded.views)
        check_pooled_states(network, learned, label)

    answers = []
    for each in (counted, lambda *_: None):
        monkeypatch.setattr(restarts, "check_pooled_states", each)
        train_fold(split, start, 0, artifacts)
        answers.append(artifacts.oof_part("mine", 0).read_bytes())
    assert asked == [1 if settings.input == "joint" else 2]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_it_ends_the_stage_with_exit_code_2(backbones: Path, lmsys: Competition, tmp_path: Path) -> None:
    """A decoder whose weights were lost: of each text it sees the same."""
    from safetensors.torch import load_file, save_file

    artifacts = Artifacts(ready(tmp_path, preference_rows(ROWS), lmsys, FOLDS, backbones))
    file = artifacts.backbone("llama") / "model.safetensors"
    save_file({name: torch.zeros_like(each) for name, each in load_file(file).items()}, file, {"format": "pt"})
    start_of("mine", decoder(), lmsys, artifacts.root)
    finished = run_module("stages.finetune", "--member", "mine", "--fold", "0", cwd=tmp_path)
    assert "mine fold 0: before training, 8 different texts have the same pooled state" in error_line(finished)
