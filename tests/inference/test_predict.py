"""A fold model that is opened once: its passes, values and memory that run out, and what stays for the next fold."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from fake_gpu import GPU, Watch, pretend
from fold_models import asked, trained
from networks import decoder, encoder
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.rows import swapped
from pipeline.errors import NoMemoryError, PodiumError
from pipeline.inference import forward, open_network
from pipeline.inference.passes import FIRST, LONG, SWAP, combined
from pipeline.inference.precision import computes_in_fp32, in_fp32
from pipeline.inference.predict import open_member, predict_member
from pipeline.models.external import save_external
from pipeline.models.saved import read_member
from pipeline.settings.external import External

EVERYTHING = {"swap": True, "long_tokens": 200}
MEMBERS = {
    "encoder": encoder(input="joint", max_tokens=48, inference=EVERYTHING),
    "siamese, long": encoder(max_tokens=24, inference={"long_tokens": 64}),
    "decoder": decoder(max_tokens=64, inference=EVERYTHING | {"precision": "nf4"}),
}


def rows_of(artifacts: Artifacts) -> pl.DataFrame:
    """Short rows and long ones."""
    rows = asked(artifacts)
    short = pl.col("prompt", "a", "b").list.eval(pl.element().str.slice(0, 6))
    return pl.concat([rows.head(6).with_columns(short), rows.tail(6)])


@pytest.mark.parametrize("name", MEMBERS)
def test_the_answer_is_that_of_all_passes_in_any_company(name: str, artifacts: Artifacts, lmsys: Competition) -> None:
    folder, rows = trained(artifacts, MEMBERS[name], lmsys), rows_of(artifacts)
    with closing(open_member(folder, artifacts, lmsys)) as member:
        whole = member.predict(rows)
        names = [FIRST, SWAP, LONG] if "long" not in name else [FIRST, LONG]
        parts = {which: member.predict(rows, which) for which in names}
        assert np.abs(whole - combined(parts)).max() < 1e-6
        assert np.abs(whole - predict_member(folder, artifacts, rows, lmsys)).max() < 1e-6
        assert np.isfinite(whole).all() and np.isfinite(parts[FIRST]).all()
        long = np.isfinite(parts[LONG]).all(axis=1)
        assert list(long) == [False] * 6 + [True] * 6
        assert np.abs(parts[LONG] - parts[FIRST])[long].max() > 1e-6
        for each in range(len(rows)):
            assert np.abs(member.predict(rows[each : each + 1]) - whole[each]).max() < 1e-6
        if SWAP in parts:
            mirrored = swapped(rows, lmsys.kind)
            assert np.abs(parts[SWAP] - lmsys.mirrored(member.predict(mirrored, FIRST))).max() < 1e-6
            assert np.abs(whole - lmsys.mirrored(member.predict(mirrored))).max() < 1e-6
        assert member.predict(rows.head(0)).shape == (0, 3) == member.predict(rows.head(0), LONG).shape
        assert member.rescued == 0 and member.tokens_per_batch == MEMBERS[name].inference.tokens_per_batch


def test_a_pass_that_a_member_lacks_is_named(artifacts: Artifacts, lmsys: Competition, tmp_path: Path) -> None:
    member = open_member(trained(artifacts, encoder(), lmsys), artifacts, lmsys)
    with pytest.raises(PodiumError, match="fold0: expected one of the passes first, found swap"):
        member.predict(asked(artifacts), SWAP)
    member.close()
    member.close()
    with pytest.raises(ValueError, match="fold0: asked after it was closed"):
        member.predict(asked(artifacts))
    known = asked(artifacts).select("id", *(pl.lit(1 / 3).alias(name) for name in lmsys.classes))
    settings = External(kind="external", backbone="none", file="external/friend.csv")
    save_external(known.head(5), settings, lmsys, tmp_path / "friend")
    friend = open_member(tmp_path / "friend", artifacts, lmsys)
    for which in (None, FIRST):
        assert np.isfinite(friend.predict(asked(artifacts), which)).all(axis=1).sum() == 5
    assert (friend.rescued, friend.tokens_per_batch) == (0, None)
    with pytest.raises(PodiumError, match="friend: expected one of the passes first, found long"):
        friend.predict(asked(artifacts), LONG)


def test_folds_share_one_base(artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [trained(artifacts, decoder(precision="nf4"), lmsys, fold) for fold in (0, 1)]
    loaded: list[Path] = []
    load = open_network.load_backbone

    def counted(base: Path, *given: Any) -> nn.Module:
        loaded.append(base)
        return load(base, *given)

    open_network._idle.clear()
    monkeypatch.setattr(open_network, "load_backbone", counted)
    answers = []
    for folder in (*folders, *folders):
        with closing(open_member(folder, artifacts, lmsys)) as member:
            answers.append(member.predict(asked(artifacts)))
            assert np.array_equal(member.predict(asked(artifacts)), answers[-1])
    assert len(loaded) == 1
    assert np.array_equal(answers[0], answers[2]) and np.array_equal(answers[1], answers[3])
    assert not np.array_equal(answers[0], answers[1])


# Values that run out.


def loud(folder: Path) -> None:
    """Scales the head's first layer as far as fp16 can hold it, so that what it says cannot be; the second one back."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    scale = 6.0e4 / float(tensors["head.network.0.weight"].abs().max())
    tensors["head.network.0.weight"] *= scale
    tensors["head.network.2.weight"] /= scale
    save_file(tensors, file)


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(each.dtype == other[name].dtype and torch.equal(each, other[name]) for name, each in one.items())


def test_what_overflows_in_half_precision_is_computed_again(artifacts: Artifacts, lmsys: Competition) -> None:
    folder, rows = trained(artifacts, encoder(inference={"precision": "fp16"}), lmsys), asked(artifacts)
    loud(folder)
    with closing(open_member(folder, artifacts, lmsys)) as member:
        network = member._networks[0].network  # type: ignore[attr-defined]
        before = snapshot(network)
        answer = member.predict(rows)
        assert 0 < member.rescued <= len(rows)
        assert same(snapshot(network), before)
        with in_fp32(network):  # the whole of it, asked without half precision
            exact = member.predict(rows)
        assert np.isfinite(answer).all()
        assert np.abs(answer - exact).max() < 2e-2
        once = member.rescued
        assert np.array_equal(member.predict(rows), answer) and member.rescued == 2 * once


def base_that_overflows(artifacts: Artifacts, scale: float) -> None:
    file = artifacts.backbone("llama") / "model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if name.endswith(("up_proj.weight", "gate_proj.weight")):
            tensors[name] *= scale
    save_file(tensors, file, {"format": "pt"})
    open_network._idle.clear()


def test_a_decoders_base_is_raised_too(artifacts: Artifacts, lmsys: Competition) -> None:
    folder, rows = trained(artifacts, decoder(precision="fp16"), lmsys), asked(artifacts)
    base_that_overflows(artifacts, 3e3)
    with closing(open_member(folder, artifacts, lmsys)) as member:
        assert np.isfinite(member.predict(rows)).all()
        assert member.rescued == len(rows)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_overflows_in_fp32_too_is_left_without_answer(
    precision: str, artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = trained(artifacts, encoder(inference={"precision": precision}), lmsys), asked(artifacts)
    tensors = load_file(folder / "model.safetensors")
    tensors["head.network.0.weight"][:] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    with closing(open_member(folder, artifacts, lmsys)) as member:
        assert np.isnan(member.predict(rows)).all()
        assert member.rescued == (0 if precision == "fp32" else len(rows))
    # Training takes no such answers.
    monkeypatch.setattr("pipeline.members.fold.predict_member", lambda *given: predict_member(folder, *given[1:]))
    with pytest.raises(PodiumError, match="mine fold 1: expected finite numbers, found 28 rows without"):
        trained(artifacts, encoder(inference={"precision": precision}), lmsys, fold=1)


@pytest.mark.parametrize("failing", [False, True])
def test_a_raised_network_comes_back_to_the_last_bit(failing: bool) -> None:
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    four = Linear4bit(64, 64, compute_dtype=torch.float16, quant_type="nf4")
    network = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Embedding(4, 64)).half().append(four.to("cpu"))
    network[0].weight.data[0, :4] = torch.tensor([65504.0, 6e-8, -0.0, float("inf")])
    before, packed = snapshot(network), four.weight.dtype
    assert not computes_in_fp32(network)
    try:
        with in_fp32(network):
            assert network[0].weight.dtype == network[1].running_mean.dtype == torch.float32
            assert four.compute_dtype == torch.float32 and four.weight.dtype == packed
            assert computes_in_fp32(network)
            if failing:
                raise KeyError
    except KeyError:
        assert failing
    assert same(before, snapshot(network)) and four.compute_dtype == torch.float16


# Memory that runs out.


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Sets how many padded tokens fit; returns the list of the batches that are asked."""
    plain = forward.batch_logits

    def holds(limit: int, error: Exception | None = None) -> list[int]:
        sizes: list[int] = []

        def asked(network: nn.Module, encoded: Any, rows: np.ndarray, *given: Any) -> torch.Tensor:
            size = int(forward.pad([encoded.ids[row * encoded.views] for row in rows], 0)[0].size)
            sizes.append(size)
            if size > limit:
                raise error or torch.OutOfMemoryError("no memory")
            return plain(network, encoded, rows, *given)

        monkeypatch.setattr(forward, "batch_logits", asked)
        return sizes

    return holds


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
@pytest.mark.parametrize("limit", [64, 200, 400])
def test_less_memory_means_smaller_batches_and_the_same_answer(
    limit: int, devices: list[str], memory: Callable[..., list[int]], artifacts: Artifacts, lmsys: Competition
) -> None:
    folder, rows = trained(artifacts, encoder(input="joint"), lmsys), asked(artifacts)
    expected = predict_member(folder, artifacts, rows, lmsys)
    sizes = memory(limit)
    with closing(open_member(folder, artifacts, lmsys, devices)) as member:
        assert np.abs(member.predict(rows) - expected).max() < 1e-6
        assert max(sizes) > limit and member.tokens_per_batch is not None
        assert member.tokens_per_batch <= max(sizes)
        sizes.clear()  # what was learned is kept
        assert np.abs(member.predict(rows) - expected).max() < 1e-6
        assert max(sizes) <= limit


@pytest.mark.parametrize("text", ["CUBLAS_STATUS_ALLOC_FAILED when calling", "CUDA error: out of memory"])
def test_memory_of_which_torch_has_no_type_means_smaller_batches_too(
    text: str, memory: Callable[..., list[int]], artifacts: Artifacts, lmsys: Competition
) -> None:
    folder, rows = trained(artifacts, encoder(input="joint"), lmsys), asked(artifacts)
    expected = predict_member(folder, artifacts, rows, lmsys)
    memory(200, RuntimeError(text))
    assert np.abs(predict_member(folder, artifacts, rows, lmsys) - expected).max() < 1e-6


def test_a_misused_memory_is_no_lack_of_it(
    memory: Callable[..., list[int]], artifacts: Artifacts, lmsys: Competition
) -> None:
    folder = trained(artifacts, encoder(input="joint"), lmsys)
    memory(8, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with closing(open_member(folder, artifacts, lmsys)) as member, pytest.raises(RuntimeError, match="illegal"):
        member.predict(asked(artifacts))


def test_a_row_that_does_not_fit_is_one_line(
    memory: Callable[..., list[int]], artifacts: Artifacts, lmsys: Competition
) -> None:
    folder = trained(artifacts, encoder(input="joint"), lmsys)
    memory(8)
    line = r"^out of memory on cpu with a single row of \d+ tokens per batch; lower max_tokens \(or inference\.long_tok"
    with closing(open_member(folder, artifacts, lmsys)) as member, pytest.raises(NoMemoryError, match=line):
        member.predict(asked(artifacts))


def test_memory_that_holds_no_network_is_one_line(
    artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> nn.Module:
        raise torch.OutOfMemoryError("no memory")

    folder = trained(artifacts, encoder(), lmsys)
    monkeypatch.setattr("pipeline.models.saved_network.fresh_backbone", full)
    with pytest.raises(PodiumError, match="fold0: out of memory on cpu, which the network alone fills"):
        open_member(folder, artifacts, lmsys)


def test_a_rescue_that_does_not_fit_is_halved_and_leaves_the_budget(
    artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = trained(artifacts, encoder(inference={"precision": "fp16"}), lmsys), asked(artifacts)
    loud(folder)
    plain = forward.batch_logits
    with closing(open_member(folder, artifacts, lmsys)) as member:
        expected, rescued = member.predict(rows), member.rescued
    assert rescued > 1

    def asked_one(network: nn.Module, encoded: Any, chosen: np.ndarray, *given: Any) -> torch.Tensor:
        if computes_in_fp32(network) and len(chosen) > 1:
            raise torch.OutOfMemoryError("no memory")
        return plain(network, encoded, chosen, *given)

    monkeypatch.setattr(forward, "batch_logits", asked_one)
    with closing(open_member(folder, artifacts, lmsys)) as member:
        budget = member.tokens_per_batch
        assert np.abs(member.predict(rows) - expected).max() < 1e-5
        assert (member.rescued, member.tokens_per_batch) == (rescued, budget)


def test_a_row_that_fits_in_half_precision_alone_is_left_without_answer(
    artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rows = trained(artifacts, encoder(inference={"precision": "fp16"}), lmsys), asked(artifacts)
    loud(folder)
    plain = forward.batch_logits

    def asked_small(network: nn.Module, *given: Any) -> torch.Tensor:
        if computes_in_fp32(network):
            raise torch.OutOfMemoryError("no memory")
        return plain(network, *given)

    monkeypatch.setattr(forward, "batch_logits", asked_small)
    with closing(open_member(folder, artifacts, lmsys)) as member:
        assert np.isnan(member.predict(rows)).all(axis=1).any()
        assert member.rescued == 0


# As on a GPU; helpers/fake_gpu.py says what is real there.


@pytest.fixture
def gpu(artifacts: Artifacts, lmsys: Competition, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """Opens a fold model's network as on a GPU."""
    pretend(monkeypatch)
    open_network._idle.clear()

    def opened(folder: Path) -> Any:
        about = read_member(folder, lmsys)
        base = artifacts.base(about.settings.backbone, about.settings.inference.precision)  # type: ignore[union-attr]
        return open_network.open_network(folder, about, base, lmsys, GPU)

    return opened


def test_adapters_compute_on_a_gpu_as_their_base_does(
    gpu: Callable[[Path], Any], artifacts: Artifacts, lmsys: Competition
) -> None:
    folder = trained(artifacts, decoder(precision="nf4"), lmsys)
    ids, mask = torch.arange(3, 43).view(2, 20), torch.ones(2, 20, dtype=torch.long)
    with closing(open_member(folder, artifacts, lmsys)) as member:
        exact = member._networks[0].network  # type: ignore[attr-defined]
        found = {each.dtype for name, each in exact.named_parameters() if "lora_" in name}
        assert found == {torch.float32}
        with torch.inference_mode():
            expected = exact(ids, mask)
    opened = gpu(folder)
    assert {each.dtype for name, each in opened.network.named_parameters() if "lora_" in name} == {torch.float16}
    with Watch() as watch, torch.inference_mode():
        answer = opened.network(ids, mask)
    assert (answer - expected).abs().max() < 2e-2
    assert not any(torch.float32 in pair and torch.float16 in pair for pair in watch.products)
    opened.close()


def test_an_idle_base_makes_room_for_whatever_comes_next(
    gpu: Callable[[Path], Any], artifacts: Artifacts, lmsys: Competition
) -> None:
    one = trained(artifacts, decoder(precision="nf4"), lmsys)
    opened = gpu(one)
    base = weakref.ref(opened.network.backbone.get_base_model().layers[0].mlp.up_proj.weight)
    opened.close()
    del opened
    assert base() is not None  # for the next fold
    settings = encoder()
    artifacts_of_encoder = trained(artifacts, settings, lmsys, fold=1)
    gc.disable()
    try:
        gpu(artifacts_of_encoder)
        assert base() is None
    finally:
        gc.enable()
