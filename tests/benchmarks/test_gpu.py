"""The GPU benchmark where there is no GPU: its parts at tiny sizes, its FLOP, its base, and parts that fail."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import __main__ as command
from benchmarks.gpu.bench import Bench, fitting
from benchmarks.gpu.llama import random_base
from benchmarks.gpu.speed import costs
from benchmarks.speed.one_shape import encoder, write_weights
from pipeline.members.decoder import with_adapters
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.deberta import attention_cpu, attention_gpu

BENCH = Bench("cpu", tiny=True)


def test_parity_holds_and_the_result_says_where_it_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attention_cpu, "attend", attention_gpu.attend)  # the way that the command is there to check
    result = command.main(["parity"], "cpu", True, 10.0, tmp_path)
    assert result == json.loads((tmp_path / "gpu.json").read_text())
    assert list(result["parts"]) == ["card", "parity"] and result["card"] == "cpu"
    checks = result["parts"]["parity"]["rows"]
    assert len(checks) == 7 and all(row["kept"] is True for row in checks)
    assert {row["padding"] for row in checks} == {"left", "right", "none"}
    page = command.page(result)
    assert page.count("| dropout |") == 1 and "**no**" not in page


def test_a_decoder_is_asked_and_trained_at_every_length() -> None:
    rates = {"bf16": 0.1, "fp16": 0.1, "fp32": 0.1}
    rows = command.llama(Bench("cpu", True, rates), "nf4")
    assert [row["what"] for row in rows] == ["inference"] * 3 + ["training"] * 3
    assert [row["tokens"] for row in rows] == [*BENCH.lengths] * 2
    assert all(row["tokens/s"] > 0 and 0 < row["share"] < math.inf for row in rows)


def test_a_part_that_fails_is_reported_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(bench: Bench) -> list[Any]:
        raise RuntimeError("no kernel\n image")

    monkeypatch.setattr(command, "PARTS", {"card": command.card, "broken": fails, "also": lambda bench: []})
    found = command.main(["broken", "also"], "cpu", True, 10.0, tmp_path)["parts"]
    assert found["broken"]["failed"] == "RuntimeError: no kernel image" and found["also"]["rows"] == []
    assert "RuntimeError" in command.page({**command._about("cpu", True), "parts": found})
    late = command.main(["also"], "cpu", True, -1.0, tmp_path)["parts"]
    assert late["also"]["failed"].startswith("left out")
    assert late["broken"] == found["broken"]  # of the call before


def test_batches_are_halved_until_they_fit() -> None:
    def attempt(rows: int) -> int:
        if rows > fits:
            raise torch.OutOfMemoryError("full")
        return rows

    fits = 3
    assert fitting(16, attempt) == (2, 2)
    fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        fitting(16, attempt)


@pytest.mark.parametrize("precision", ["bf16", "nf4", "int8"])
def test_a_base_in_memory_is_what_loading_makes_of_a_folder(precision: str, tmp_path: Path) -> None:
    config = BENCH.config("llama-3-8b")
    write_weights(config, tmp_path, "cpu")
    loaded, built = load_backbone(tmp_path, precision, "cpu"), random_base(config, precision, "cpu")

    def described(network: Any) -> dict[str, Any]:
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        found = {name: (type(each), each.dtype, each.shape, each.device.type) for name, each in tensors.items()}
        return found | {
            name: (type(each), getattr(each, "compute_dtype", None)) for name, each in network.named_modules()
        }

    assert described(loaded) == described(built)
    assert torch.equal(loaded.rotary_emb.inv_freq, built.rotary_emb.inv_freq)
    ids = torch.arange(12).reshape(2, 6)
    spread = [float(network(input_ids=ids).last_hidden_state.float().std()) for network in (loaded, built)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_flop_are_those_that_torch_counts(kind: str, tmp_path: Path) -> None:
    settings = BENCH.settings("large" if kind == "encoder" else "qwen")
    settings = replace(settings, training=replace(settings.training, gradient_checkpointing=False))
    config = BENCH.config("deberta-v3-large" if kind == "encoder" else "llama-3-8b")
    # torch does not count a CPU's attention under a causal mask, which is next to nothing in short rows.
    shape = (16, 128) if kind == "encoder" else (64, 16)
    if kind == "encoder":
        write_weights(config, tmp_path, "cpu")
        backbone: Any = encoder(tmp_path, settings, "cpu").backbone
    else:
        backbone = with_adapters(random_base(config, "bf16", "cpu"), settings)
        backbone.enable_input_require_grads()
    ids = torch.ones(shape, dtype=torch.long)
    found = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            states = backbone.train()(input_ids=ids, attention_mask=ids).last_hidden_state
            if backward:
                states.float().sum().backward()
        found.append(counter.get_total_flops() / ids.numel())
    expected = costs(backbone, config, shape[1])
    # Ours leaves out what grows with the length alone: the embeddings of distances, once per batch.
    assert found == pytest.approx(list(expected), rel=0.12)
