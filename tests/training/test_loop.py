from __future__ import annotations

import math
import weakref
from collections.abc import Callable
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
from torch.nn.functional import cross_entropy

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.folds import group_keys
from pipeline.data.split import Split, split_rows
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.inference.network_member import encoded_rows
from pipeline.members.context import Run
from pipeline.members.finetune import inner_slice
from pipeline.members.fold import train_fold
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.models.network import encoder_network
from pipeline.training import progress
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device
from pipeline.training.loop import TrainingRun, fit
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.optim import adamw
from pipeline.training.progress import room_for_moments
from pipeline.training.seeds import seed_of
from pipeline.training.state import Record

CPU = Device("cpu", "fp32")


@pytest.fixture
def run(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "run")


def network_of(
    backbones: Path, competition: Competition, dropout: float | None = 0.0, head: str = "equivariant"
) -> nn.Module:
    torch.manual_seed(0)
    backbone = load_backbone(backbones / "backbones/bert", "fp32", "cpu", dropout)
    return encoder_network(backbone, encoder(head=head), competition.kind, len(competition.classes), None)


def objective(
    backbones: Path, competition: Competition, budget: int = 1024, rows: int = 40, smoothing: float = 0.0
) -> Supervised:
    chosen = preference_rows(rows)
    tokenizer = load_tokenizer(backbones / "backbones/bert")
    encoded = encoded_rows(chosen, encoder(), tokenizer, competition)
    labels = chosen["label"].to_numpy().astype(np.int64)
    return Supervised(encoded, labels, competition.family, tokenizer.pad_token_id, "cpu", 8, budget, smoothing, 0)


def fitted(
    network: nn.Module, learned: Supervised, checkpoint: Checkpoint, device: Device = CPU,
    evaluate: Callable[[], float] | None = None, **changed: Any,
) -> Record:  # fmt: skip
    """The record of a run of the loop, with these training settings."""
    asked = training_settings(**changed)
    return fit(TrainingRun(network, learned, asked, device, checkpoint, "mine", evaluate=evaluate)).record


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in network.named_parameters()}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_the_token_budget_changes_nothing_but_the_packing(backbones: Path, lmsys: Competition, tmp_path: Path) -> None:
    found = []
    for budget in (128, 10_000):
        network, learned = network_of(backbones, lmsys), objective(backbones, lmsys, budget)
        before = weights(network)
        # A large eps would hide a difference, AdamW's own would magnify rounding where a gradient is nearly 0.
        record = fitted(network, learned, Checkpoint(tmp_path / str(budget)))
        found.append((weights(network), record.losses, max(map(len, learned.epoch(0)))))
        assert furthest(before, found[-1][0]) > 1e-3
    (small, losses, batches), (large, other_losses, single) = found
    assert batches > 3 and single == 1
    assert np.allclose(losses, other_losses, atol=1e-5)
    assert furthest(small, large) < 1e-5


def test_the_same_run_twice_gives_the_same_bits(backbones: Path, lmsys: Competition, tmp_path: Path) -> None:
    found = []
    for number in range(2):
        network = network_of(backbones, lmsys, dropout=0.1)
        fitted(network, objective(backbones, lmsys), Checkpoint(tmp_path / str(number)))
        torch.manual_seed(number)  # what happens in between does not matter
        found.append(weights(network))
    assert furthest(*found) == 0.0


class Fixed(nn.Module):
    """The same logits for every row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.logits.expand(len(input_ids) // 2, -1)


@given(logits=st.lists(st.floats(-20, 20), min_size=3, max_size=3), smoothing=st.floats(0.0, 0.9))
@settings(max_examples=40, deadline=None)
def test_label_smoothing_is_the_formula(
    logits: list[float], smoothing: float, backbones: Path, lmsys: Competition
) -> None:
    learned = objective(backbones, lmsys, rows=6, smoothing=smoothing)
    batch = learned.batch(np.arange(6), 0)
    network = Fixed(torch.tensor(logits))
    loss, plain, _ = learned.loss(network, batch)
    target = (1 - smoothing) * np.eye(3)[learned.labels] + smoothing / 3
    log_p = torch.tensor(logits, dtype=torch.float64).log_softmax(0).numpy()
    assert float(loss) == pytest.approx(-(target * log_p).sum(), rel=1e-4, abs=1e-4)
    assert float(plain) == pytest.approx(-log_p[learned.labels].sum(), rel=1e-4, abs=1e-4)
    wanted = cross_entropy(network.logits.expand(6, -1), batch.targets, label_smoothing=smoothing, reduction="sum")
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4, abs=1e-4)


def test_uniform_logits_cost_ln_of_the_classes(backbones: Path, lmsys: Competition) -> None:
    learned = objective(backbones, lmsys, rows=6, smoothing=0.3)
    loss, plain, _ = learned.loss(Fixed(torch.zeros(3)), learned.batch(np.arange(6), 0))
    assert float(loss) / 6 == pytest.approx(math.log(3), abs=1e-6) == float(plain) / 6
    assert learned.score(Fixed(torch.zeros(3))) == pytest.approx(math.log(3), abs=1e-6)


def test_without_dropout_two_forward_passes_are_identical(backbones: Path, lmsys: Competition) -> None:
    inputs = objective(backbones, lmsys).batch(np.arange(8), 0).inputs
    still, moving = (network_of(backbones, lmsys, dropout).train() for dropout in (0.0, None))
    assert torch.equal(still(*inputs), still(*inputs))
    assert not torch.equal(moving(*inputs), moving(*inputs))
    for module in still.modules():
        assert getattr(module, "drop_prob", 0) == 0
        assert getattr(module, "p", 0) == 0


def test_the_average_is_judged_in_evaluation_mode_and_is_what_remains(
    backbones: Path, lmsys: Competition, run: Checkpoint
) -> None:
    network, learned = network_of(backbones, lmsys, dropout=0.2), objective(backbones, lmsys)
    judged: list[dict[str, Tensor]] = []

    def evaluate() -> float:
        assert not any(module.training for module in network.modules())
        assert learned.score(network) == learned.score(network)
        judged.append(weights(network))
        return -float(len(judged))  # ever better

    plain = network_of(backbones, lmsys, dropout=0.2)
    fitted(plain, learned, Checkpoint(run.folder / "plain"), epochs=2)
    fitted(network, learned, run, evaluate=evaluate, epochs=2, ema=0.2, inner=0.1)
    assert len(judged) == 2
    assert furthest(judged[-1], weights(network)) == 0.0
    assert furthest(weights(plain), weights(network)) > 1e-4  # it is the average, not the last weights
    assert not network.training


def test_the_best_moment_is_restored_exactly(backbones: Path, lmsys: Competition, run: Checkpoint) -> None:
    network, learned = network_of(backbones, lmsys), objective(backbones, lmsys)
    given, seen = iter([1.0, 0.5, 0.50000001, 0.4999999, 0.7, 0.6, 0.1]), []

    def evaluate() -> float:
        seen.append(weights(network))
        return next(given)

    record = fitted(network, learned, run, evaluate=evaluate, epochs=7, inner=0.1, patience=2)
    assert len(seen) == 6  # two evaluations without a better one end it
    assert record.best == record.scores[3][0] == 20
    assert furthest(weights(network), seen[3]) == 0.0
    assert len(record.losses) == 30


def test_patience_0_never_stops(backbones: Path, lmsys: Competition, run: Checkpoint) -> None:
    network, learned = network_of(backbones, lmsys), objective(backbones, lmsys)
    scores = iter([0.1, 0.2, 0.3, 0.4])
    record = fitted(network, learned, run, evaluate=lambda: next(scores), epochs=4, inner=0.1)
    assert [score for _, score in record.scores] == [0.1, 0.2, 0.3, 0.4] and record.best == 5


def test_a_loss_that_is_not_finite_is_one_line(backbones: Path, lmsys: Competition, run: Checkpoint) -> None:
    network = network_of(backbones, lmsys)
    with torch.no_grad():
        next(network.parameters()).fill_(math.inf)
    with pytest.raises(PodiumError, match=r"mine: the loss is not finite at step 1 of 5 .*; lower .*rate or set") as it:
        fitted(network, objective(backbones, lmsys), run)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_lower(
    error: Exception, backbones: Path, lmsys: Competition, run: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(backbones, lmsys)

    def fail(*_: Any) -> Tensor:
        raise error

    monkeypatch.setattr(type(network), "forward", fail)
    with pytest.raises(PodiumError, match=r"mine: out of memory; lower batches\.tokens_per_batch \(now 1024\)") as it:
        fitted(network, objective(backbones, lmsys), run)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize("part", ["optim.step", "techniques.averaging.Average.update", "state.State.judge"])
def test_out_of_memory_is_one_line_wherever_it_happens(
    part: str, backbones: Path, lmsys: Competition, run: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("pipeline.training.loop.step" if part == "optim.step" else f"pipeline.training.{part}", fail)
    with pytest.raises(PodiumError, match=r"mine: out of memory; lower batches\.tokens_per_batch"):
        fitted(
            network_of(backbones, lmsys),
            objective(backbones, lmsys),
            run,
            evaluate=lambda: 1.0,
            ema=0.1,
            inner=0.1,
        )


def test_the_forecast_holds_the_memory_that_adamw_takes_later(backbones: Path, lmsys: Competition) -> None:
    network = network_of(backbones, lmsys)
    room = sum(each.numel() for each in room_for_moments(network, training_settings()))
    optimizer = adamw(network, training_settings())
    for each in network.parameters():
        each.grad = torch.zeros_like(each)
    optimizer.step()
    moments = [each for state in optimizer.state.values() for name, each in state.items() if name != "step"]
    assert room == sum(each.numel() * each.element_size() for each in moments)
    eight = room_for_moments(network, training_settings(optimizer_bits=8))
    assert sum(each.numel() for each in eight) == room / 4


def test_the_forecast_keeps_that_memory_while_it_computes(
    backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(backbones, lmsys)
    room: list[weakref.ref[Tensor]] = []
    held: list[bool] = []
    plain = progress.room_for_moments

    def watched(*given: Any) -> list[Tensor]:
        found = plain(*given)
        room.extend(map(weakref.ref, found))
        return found

    def timed(*_: Any) -> float:
        held.append(bool(room) and all(each() is not None for each in room))
        return 1.0

    monkeypatch.setattr(progress, "room_for_moments", watched)
    monkeypatch.setattr(progress, "_seconds", timed)
    learned = objective(backbones, lmsys)
    progress.forecast(network, learned, training_settings(), CPU, "mine", Path())
    assert held and all(held) and all(each() is None for each in room)


def test_a_defect_is_not_taken_for_a_lack_of_memory(
    backbones: Path, lmsys: Competition, run: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(backbones, lmsys)

    def fail(*_: Any) -> Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(type(network), "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fitted(network, objective(backbones, lmsys), run)


@pytest.mark.parametrize("settings_of", [encoder, decoder])
def test_memory_that_runs_out_in_the_forecast_is_one_line_too(
    settings_of: Any, tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.models.network import Network

    def fail(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Network, "forward", fail)
    rows, folds = preference_rows(40), np.repeat([0, 1, -1], [12, 20, 8])
    artifacts = ready(tmp_path, rows, lmsys, folds, backbones)
    start = start_of("mine", settings_of(), lmsys, artifacts)
    with pytest.raises(PodiumError, match=r"mine fold 0: out of memory; lower batches\.tokens_per_batch"):
        train_fold(Split(rows[12:32], rows[:12], rows[32:]), start, 0, Artifacts(artifacts))
    assert not (artifacts / "members/mine/fold0").exists()


@given(share=st.floats(0.0, 0.49), seed=st.integers(0, 50), count=st.integers(20, 120))
@settings(max_examples=40, deadline=None)
def test_the_inner_slice_is_whole_groups_and_no_more_than_its_share(
    share: float, seed: int, count: int, lmsys: Competition
) -> None:
    rows = preference_rows(count)
    learned, inner = inner_slice(rows, share, seed, lmsys)
    assert sorted(learned["id"].to_list() + inner["id"].to_list()) == rows["id"].to_list()
    assert share * count - 2 <= len(inner) <= share * count
    groups = [set(group_keys(each, lmsys.kind)) for each in (learned, inner)]
    assert not groups[0] & groups[1]


def test_the_inner_slice_is_no_part_of_the_fold(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.members import finetune

    monkeypatch.chdir(tmp_path)
    rows, folds = preference_rows(60), np.repeat([0, 1, -1], [12, 40, 8])
    artifacts = ready(tmp_path, rows, lmsys, folds, backbones)
    start = start_of("mine", encoder({"inner": 0.2, "epochs": 2, "evaluations_per_epoch": 2}), lmsys, artifacts)
    asked: list[pl.DataFrame] = []

    def spy(given: pl.DataFrame, *others: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
        asked.append(given)
        return inner_slice(given, *others)

    monkeypatch.setattr(finetune, "inner_slice", spy)
    split = split_rows(rows, pl.read_parquet(artifacts / "folds.parquet"), 0)
    train_fold(split, start, 0, Artifacts(artifacts))
    assert asked[0]["id"].to_list() == rows["id"][12:52].to_list()
    told = read_json(artifacts / "receipts/mine-fold0.json")["training"]
    assert len(told["inner"]) == 4 and told["best"] in [step for step, _ in told["inner"]]
    assert set(told["truncation"]) == {"prompt", "a", "b"}
    # Judged by the fold, against the shares of the classes in all that the other folds hold, inner slice included.
    labels, shares = rows["label"][:12].to_numpy(), np.bincount(rows["label"][12:52], minlength=3) / 40
    answers = pl.read_parquet(artifacts / "oof/mine/fold0.parquet").select(lmsys.classes).to_numpy()
    better = np.log(answers[np.arange(12), labels]).mean() > np.log(shares[labels]).mean()
    assert told["collapsed"] == (not better)


def test_rows_that_are_too_few_for_an_inner_slice_are_said(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(40).with_columns(prompt=pl.Series([["the same question"]] * 40))
    artifacts = ready(tmp_path, rows, lmsys, np.repeat([0, 1, -1], [12, 20, 8]), backbones)
    start = start_of("mine", encoder({"inner": 0.2, "patience": 1}), lmsys, artifacts)
    train_fold(Split(rows[12:32], rows[:12], rows[32:]), start, 0, Artifacts(artifacts))
    assert "20 rows are too few for training.inner 0.2; the last weights are kept" in capsys.readouterr().out
    assert read_json(artifacts / "receipts/mine-fold0.json")["training"]["inner"] == []


def test_a_fold_model_that_learned_nothing_is_marked_collapsed(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    rows = preference_rows(60).with_columns(label=pl.Series([0, 0, 0, 0, 1, 2] * 10, dtype=pl.Int16))
    artifacts = ready(tmp_path, rows, lmsys, np.repeat([0, 1, -1], [12, 40, 8]), backbones)
    start = start_of("mine", encoder({"schedule": {"rate": 1e-12}, "prior_start": False}), lmsys, artifacts)
    split = split_rows(rows, pl.read_parquet(artifacts / "folds.parquet"), 0)
    train_fold(split, start, 0, Artifacts(artifacts))
    assert read_json(artifacts / "receipts/mine-fold0.json")["training"]["collapsed"] is True
    assert "warning: mine fold 0: COLLAPSED, no better than the prior" in capsys.readouterr().out


def test_swapped_rows_join_with_swapped_labels(
    tmp_path: Path, backbones: Path, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.members import finetune

    monkeypatch.chdir(tmp_path)
    rows = preference_rows(40)
    artifacts = ready(tmp_path, rows, lmsys, np.repeat([0, 1, -1], [12, 20, 8]), backbones)
    start = start_of("mine", encoder({"swap": True}), lmsys, artifacts)
    split = Split(rows, rows.head(0), rows.head(0))
    run = Run("x", Artifacts(artifacts), Checkpoint(tmp_path / "checkpoint"))
    learned = finetune._objective(rows, finetune.open_run(split, start, encoder({"swap": True}), run), True, 0.0)
    assert np.bincount(learned.labels)[0] == np.bincount(learned.labels)[1]
    assert len(learned.labels) == 80 and len(learned.encoded) == 80
    for row in range(40):
        first, second = (learned.encoded.ids[2 * row + view] for view in (0, 1))
        assert np.array_equal(first, learned.encoded.ids[2 * (row + 40) + 1])
        assert np.array_equal(second, learned.encoded.ids[2 * (row + 40)])
        assert learned.labels[row + 40] == lmsys.kind.mirror[learned.labels[row]]  # type: ignore[index]


def test_a_step_that_overflows_is_skipped_and_leaves_weights_and_average_alone(
    backbones: Path, lmsys: Competition, run: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Device("cpu", "fp16")
    monkeypatch.setattr(Device, "scaler", lambda self: torch.amp.GradScaler("cpu", init_scale=2.0**120))
    network = network_of(backbones, lmsys)
    before = weights(network)
    record = fitted(network, objective(backbones, lmsys), run, half, ema=0.5)
    assert record.skipped == len(record.losses) == 5
    assert furthest(before, weights(network)) == 0.0
    monkeypatch.undo()
    own = fitted(network, objective(backbones, lmsys), Checkpoint(run.folder / "own"), half)
    assert own.skipped == 0 and furthest(before, weights(network)) > 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_stay_fp32_in_a_half_precise_run(
    precision: str, backbones: Path, lmsys: Competition, run: Checkpoint
) -> None:
    network = network_of(backbones, lmsys)
    fitted(network, objective(backbones, lmsys), run, Device("cpu", precision))
    assert {each.dtype for each in network.parameters()} == {torch.float32}


def test_seeds_of_streams_and_steps_differ() -> None:
    assert len({seed_of(stream, step) for stream in range(20) for step in range(200)}) == 4000
    assert seed_of(1, 2) == seed_of(1, 2) < 2**63
