"""A run that comes to nothing begins again, and several runs become one: with real, small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import decoder, encoder, ready, start_of, training_settings
from support import preference_rows
from torch import Tensor, nn

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.split import split_rows
from pipeline.errors import PodiumError
from pipeline.evaluation.collapse import most_attempts, share_of_updates, stopped_attempts
from pipeline.files import read_json
from pipeline.inference.network_member import encoded_rows
from pipeline.members.decoder import adapted_base
from pipeline.members.encoder import trainable_backbone
from pipeline.members.fold import train_fold
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import decoder_network, encoder_network
from pipeline.settings.optimisation import RateSchedule
from pipeline.training import restarts as module
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device
from pipeline.training.loop import Trained, TrainingRun
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.optim import adamw, backbone_name
from pipeline.training.restarts import Job, retuned, train

CPU = Device("cpu", "fp32")
PLAIN = training_settings()
WILD = {"schedule": {"rate": 1.0, "warmup": 0.0}, "epochs": 6}
"""A rate at which the network is destroyed at once."""


@pytest.fixture
def job(backbones: Path, lmsys: Competition, tmp_path: Path) -> Any:
    def made(attempts: int = 0, rows: int = 64, judged: bool = False, **changed: Any) -> Job:
        settings = encoder(changed)
        tokenizer = load_tokenizer(backbones / "backbones/bert")

        def objective(chosen: pl.DataFrame) -> Supervised:
            labels = chosen["label"].to_numpy().astype(np.int64)
            encoded = encoded_rows(chosen, settings, tokenizer, lmsys)
            return Supervised(encoded, labels, lmsys.family, tokenizer.pad_token_id, "cpu", 8, 4096, 0.0, 0)

        def build() -> nn.Module:
            backbone = trainable_backbone(backbones / "backbones/bert", settings, "cpu")
            return encoder_network(backbone, settings, lmsys.kind, 3, None)

        judge = objective(preference_rows(20, seed=9)) if judged else None
        learned, state = objective(preference_rows(rows)), Checkpoint(tmp_path / "run")
        return Job(build, learned, judge, settings.training, attempts, CPU, state, "mine")

    return made


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in network.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one | other)


def fresh(job: Job, seed: int = 0) -> nn.Module:
    torch.manual_seed(module.seed_of(seed))
    return job.build()


def test_a_run_that_learns_is_left_alone_and_the_guard_changes_no_bit(job: Any, tmp_path: Path) -> None:
    good = {"schedule": {"rate": 3e-3}, "epochs": 6}
    alone = train(job(0, **good))
    watched = train(replace(job(3, **good), checkpoint=Checkpoint(tmp_path / "watched")))
    assert [each["stopped"] for each in watched.attempts] == [None]
    assert same(weights(alone.network), weights(watched.network))


def test_a_destroyed_network_begins_again_as_if_it_had_been_asked_so(
    job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SLOWER", 3e-3)  # one step down is far enough
    given = job(3, **WILD)
    trained = train(given)
    first, second = trained.attempts
    assert first["stopped"] and second["stopped"] is None and trained.record.stopped is None
    assert first["steps"] < first["of"] == second["of"] == second["steps"] == 48
    assert (first["rate"], second["rate"]) == (1.0, pytest.approx(3e-3))
    assert (first["warmup"], second["warmup"]) == (0.0, pytest.approx(0.1))
    assert first["head"] != second["head"]
    assert f"warning: mine: {first['stopped']}; it starts again" in capsys.readouterr().out
    asked = retuned(given.settings, 0, 1)
    direct = train(replace(given, settings=asked, attempts=0, checkpoint=Checkpoint(tmp_path / "direct")))
    assert same(weights(trained.network), weights(direct.network))


def test_a_run_that_never_learns_is_given_up(job: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trained = train(job(2, **WILD))
    assert [bool(each["stopped"]) for each in trained.attempts] == [True, True]
    assert trained.record.stopped == trained.attempts[-1]["stopped"]
    assert "; it is given up" in capsys.readouterr().out


def test_shuffled_labels_are_not_called_learned(job: Any) -> None:
    given = job(1, rows=240, schedule={"rate": 1e-3})
    labels = np.random.default_rng(0).permutation(given.learned.labels)
    trained = train(replace(given, learned=replace(given.learned, labels=labels)))
    assert trained.record.stopped is not None


def test_plain_cross_entropy_is_watched_under_label_smoothing(job: Any, tmp_path: Path) -> None:
    good = {"schedule": {"rate": 3e-3}, "epochs": 6}
    found = []
    for smoothing in (0.0, 0.5):
        given = job(1, label_smoothing=smoothing, **good)
        learned = replace(given.learned, smoothing=smoothing)
        found.append(train(replace(given, learned=learned, checkpoint=Checkpoint(tmp_path / str(smoothing)))))
    assert all(each.record.stopped is None for each in found)
    first = [each.record.seen[0] for each in found]
    assert first[0][:2] == first[1][:2] and first[0].head != first[1].head


def test_a_loss_that_is_never_finite_is_one_line(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = job(2)

    def broken() -> nn.Module:
        network = given.build()
        with torch.no_grad():
            next(network.parameters()).fill_(torch.inf)
        return network

    with pytest.raises(PodiumError, match=r"mine: the loss is not finite at step 1 of 8 .*; lower .*rate or set") as it:
        train(replace(given, build=broken))
    assert "\n" not in str(it.value)


class Killed(BaseException):
    """As if the process had been killed between two writes."""


@pytest.mark.parametrize(
    "write", [pytest.param(2, marks=pytest.mark.slow), 9, pytest.param(40, marks=pytest.mark.slow)]
)
def test_killed_in_any_attempt_it_ends_as_if_left_alone(
    write: int, job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOWER", 3e-3)
    monkeypatch.setenv("PODIUM_CHECKPOINT_SECONDS", "0")
    given = job(3, dropout=0.1, ema=0.1, runs=2, head_first={"epochs": 1}, **WILD)
    alone = train(given)
    assert len(alone.attempts) == 3 and sum(each["run"] for each in alone.attempts) == 1
    again, own, count = replace(given, checkpoint=Checkpoint(tmp_path / "again")), Checkpoint.save, iter(range(10**6))

    def save(self: Checkpoint, *values: Any) -> None:
        if next(count) == write:
            raise Killed
        own(self, *values)

    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(Killed):
        train(again)
    resumed = train(again)
    assert same(weights(alone.network), weights(resumed.network))
    assert alone.attempts == resumed.attempts and alone.record == resumed.record


def test_the_head_learns_first_on_a_backbone_that_stays_bit_by_bit(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = job(head_first={"epochs": 4, "rate": 3e-3}, dropout=0.3)
    before, scores = weights(fresh(given)), []
    calls = iter(("head", "all"))
    own = module.fit

    def spy(run: TrainingRun) -> Trained:
        network, learned = run.network, run.objective
        assert isinstance(learned, Supervised)
        if next(calls) == "all":
            now = weights(network)
            assert all(torch.equal(now[name], before[name]) for name in now if name.startswith("backbone."))
            assert not any(torch.equal(now[name], before[name]) for name in now if name.endswith("2.weight"))
            assert all(each.requires_grad for each in network.parameters())
            scores.append(learned.score(network.eval()))
            return own(run)
        trained = own(run)
        assert not network.training
        scores.append(learned.score(network))
        return trained

    monkeypatch.setattr(module, "fit", spy)
    trained = train(given)
    assert scores[0] == scores[1]
    assert not same(weights(trained.network), before)


def test_the_backbone_rests_while_the_head_learns(job: Any) -> None:
    """Without dropout in the backbone the head sees the same features in each epoch."""
    given = job(head_first={"epochs": 2}, dropout=0.5)
    network = fresh(given)
    seen: list[bool] = []
    network.backbone.register_forward_pre_hook(lambda backbone, _: seen.append(backbone.training))  # type: ignore[union-attr]
    module._head_alone(network, given, given.learned, given.settings, given.settings.head_first, "x")
    assert seen and not any(seen)


def test_the_head_learns_alone_without_attacks_and_children(job: Any, tmp_path: Path) -> None:
    found = []
    for more in ({}, {"awp": {}, "fgm": {}, "smart": {}, "r_drop": {}, "deni": {"children": 1}}):
        given = replace(job(), checkpoint=Checkpoint(tmp_path / str(len(found))))
        network, asked = fresh(given), training_settings(dropout=0.1, head_first={"epochs": 2}, **more)
        module._head_alone(network, given, given.learned, asked, asked.head_first, "x")
        found.append(weights(network))
    assert same(*found)


def test_word_embeddings_that_are_frozen_stay_and_cost_nothing(job: Any) -> None:
    given = job(freeze_embeddings=True, schedule={"rate": 3e-3})
    network, trained = fresh(given), train(given)
    table = "backbone.embeddings.word_embeddings.weight"
    before, after = weights(network), weights(trained.network)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert table not in changed and "backbone.embeddings.LayerNorm.weight" in changed
    optimizer = adamw(network, given.settings)
    assert not any(
        each is dict(network.named_parameters())[table] for g in optimizer.param_groups for each in g["params"]
    )


def test_several_runs_are_averaged_weight_by_weight(job: Any, tmp_path: Path) -> None:
    given = job(runs=3, schedule={"rate": 3e-3}, dropout=0.1)
    trained = train(given)
    assert [each["run"] for each in trained.attempts] == [0, 1, 2]
    single = []
    for run in range(3):
        asked = replace(retuned(given.settings, run, 0), runs=1)
        state = Checkpoint(tmp_path / str(run))
        single.append(weights(train(replace(given, settings=asked, checkpoint=state)).network))
    found = weights(trained.network)
    for name in found:
        assert not torch.equal(single[0][name], single[1][name]) or "rel_embeddings" in name, name
        wanted = torch.stack([each[name] for each in single]).mean(dim=0)
        assert torch.allclose(found[name], wanted, atol=1e-6), name


def test_adapters_are_averaged_from_a_common_start(
    backbones: Path, lmsys: Competition, tmp_path: Path, job: Any
) -> None:
    asked = decoder({"runs": 2, "schedule": {"rate": 3e-3}})

    def build() -> nn.Module:
        return decoder_network(adapted_base(backbones / "backbones/llama", asked, "cpu"), asked, lmsys)

    rows, tokenizer = preference_rows(24), load_tokenizer(backbones / "backbones/llama")
    labels, encoded = rows["label"].to_numpy().astype(np.int64), encoded_rows(rows, asked, tokenizer, lmsys)
    learned = Supervised(encoded, labels, lmsys.family, tokenizer.pad_token_id, "cpu", 8, 4096, 0.0, 0)
    given = replace(job(), build=build, learned=learned, settings=asked.training)
    starts: list[dict[str, Tensor]] = []
    noted = replace(given, build=lambda: (network := build(), starts.append(weights(network)))[0])
    trained = train(noted)
    assert len(starts) == 2 and same(*starts)
    frozen = {name for name, each in trained.network.named_parameters() if not each.requires_grad}
    after = weights(trained.network)
    assert all(torch.equal(after[name], starts[0][name]) for name in frozen)
    assert any("lora_B" in name and after[name].any() for name in after)


def test_a_later_run_that_comes_to_nothing_is_left_out(
    job: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = module.fruitless
    verdicts = iter([None, "no use", None])
    monkeypatch.setattr(module, "fruitless", lambda *given: next(verdicts))
    given = job(2, runs=3, schedule={"rate": 3e-3})
    trained = train(given)
    assert [each["stopped"] for each in trained.attempts] == [None, "no use", None]
    monkeypatch.setattr(module, "fruitless", own)
    kept = []
    for run in (0, 2):
        asked = replace(retuned(given.settings, run, 0), runs=1)
        job_of = replace(given, settings=asked, attempts=0, checkpoint=Checkpoint(tmp_path / str(run)))
        kept.append(weights(train(job_of).network))
    for name, each in weights(trained.network).items():
        assert torch.allclose(each, (kept[0][name] + kept[1][name]) / 2, atol=1e-6), name


@given(st.integers(0, 5), st.floats(0, 0.9), st.floats(1e-6, 1e-2))
@settings(max_examples=40, deadline=None)
def test_a_restart_is_slower_longer_and_has_another_head(attempt: int, warmup: float, rate: float) -> None:
    asked = replace(PLAIN, schedule=RateSchedule(rate=rate, warmup=warmup), head_rate=2 * rate)
    found = retuned(asked, 0, attempt)
    assert found.schedule.rate == pytest.approx(rate / 2**attempt)
    assert found.head_rate == pytest.approx(2 * found.schedule.rate)
    assert warmup <= found.schedule.warmup <= max(warmup, 0.4)
    assert (found.seeds == asked.seeds) == (attempt == 0)
    assert found.seeds.order == asked.seeds.order
    assert retuned(asked, 1, attempt).seeds.head == found.seeds.head
    if attempt == 0:
        assert found == asked


@pytest.mark.parametrize("layers", [0, 1])
def test_the_top_layers_are_drawn_anew_and_nothing_else(layers: int, job: Any) -> None:
    old, new = fresh(job()), fresh(job(reinit_layers=layers))
    before, after = weights(old), weights(new)
    backbone = f"{backbone_name(old)}."
    changed = {name for name in before if name.startswith(backbone) and not torch.equal(before[name], after[name])}
    assert all(".layer.0." in name for name in changed)
    assert bool(changed) == bool(layers)
    for name in changed:
        assert after[name].std() == pytest.approx(0.02, rel=0.1) if after[name].ndim == 2 else not after[name].any()


def test_more_layers_than_there_are_cannot_be_drawn_anew(job: Any) -> None:
    with pytest.raises(
        PodiumError, match=r"training\.reinit_layers: expected at most the backbone's 1 layers, found 2"
    ):
        job(reinit_layers=2).build()


def test_receipt_and_scores_tell_every_attempt(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(60)
    artifacts = ready(tmp_path, rows, lmsys, np.repeat([0, 1, -1], [12, 40, 8]), backbones)
    start = start_of("mine", encoder(WILD), lmsys, artifacts)
    split = split_rows(rows, pl.read_parquet(artifacts / "folds.parquet"), 0)
    train_fold(split, start, 0, Artifacts(artifacts))
    training = read_json(artifacts / "receipts/mine-fold0.json")["training"]
    assert training["collapsed"] is True and training["failed"]
    records = {0: training, 1: training}
    stopped = stopped_attempts(records)
    assert most_attempts(records) == 2 and len(stopped) == 4
    assert stopped[3].startswith("fold 1, attempt 2 (rate 0.5, warmup 10%), ")
    assert share_of_updates(records) == pytest.approx(
        sum(each["steps"] for each in training["attempts"]) / 30, abs=1e-4
    )
