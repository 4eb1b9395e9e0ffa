"""The GPU benchmark where there is no GPU: parts at tiny sizes, goals, and processes that fail, crash or hang."""

from __future__ import annotations

import ast
import json
import math
import multiprocessing
import signal
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT
from torch.utils.flop_counter import FlopCounterMode
from transformers import DebertaV2Config, DebertaV2Model

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import parts, resume, rivals, unused, worker
from benchmarks.gpu.bench import OUT_OF_TIME, Bench, fitting, tried
from benchmarks.gpu.checkpointing import checkpointing
from benchmarks.gpu.cudnn import cudnn
from benchmarks.gpu.goals import Goal, goals
from benchmarks.gpu.llama import random_base
from benchmarks.gpu.parity import parity
from benchmarks.gpu.parts import PARTS, REQUIRED, UNUSED, Part
from benchmarks.gpu.speed import costs, llama_nf4
from benchmarks.speed.networks import deberta
from benchmarks.speed.one_shape import encoder, write_weights
from pipeline.members.decoder import with_adapters
from pipeline.models.backbones.loading import load_backbone
from pipeline.models.deberta import attention_cpu, attention_gpu

BENCH = Bench("cpu", tiny=True)
CARD = {"card": "a card", "torch": "2", "cuda": "13", "tiny": True}


def bench(**changed: Any) -> Bench:
    return replace(BENCH, rows=[], **changed)


def test_parity_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, "attend", attention_gpu.attend)  # the way that the command is there to check
    found = bench()
    parity(found)
    assert len(found.rows) == 7 and all(row["kept"] is True for row in found.rows)
    assert {row["padding"] for row in found.rows} == {"left", "right", "none"}
    assert goals(BENCH.lengths)[0].told({"parity": {"rows": found.rows}})["verdict"] == "met"


def test_a_decoder_is_asked_and_trained_at_every_length() -> None:
    found = bench(rates={"bf16": 0.1, "fp16": 0.1, "fp32": 0.1})
    llama_nf4(found)
    assert [row["what"] for row in found.rows] == ["inference"] * 3 + ["training"] * 3
    assert [row["tokens"] for row in found.rows] == [*BENCH.by_worth] * 2
    assert all(row["tokens/s"] > 0 and 0 < row["share"] < math.inf for row in found.rows)


def test_eight_bits_and_cudnn_are_tried_both_ways() -> None:
    found = bench()
    checkpointing(found)
    cudnn(found)
    assert not [row for row in found.rows if "failed" in row]
    assert {(row["base"], row["checkpointing"]) for row in found.rows[:4]} == {
        (base, again) for base in ("nf4", "int8") for again in ("on", "off")
    }
    assert [row["cuDNN"] for row in found.rows[4:]] == ["off"] * 3 + ["on"] * 3
    assert all(row.get("finite", True) for row in found.rows[4:])
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("kind", ["DeBERTa, bf16", "Llama with LoRA, nf4"])
def test_a_killed_run_ends_as_one_left_alone_and_a_changed_one_does_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume.main(tmp_path, kind, "alone", BENCH)
    # In a process of its own, as a user's: here it is a fork, which spares the imports.
    killed = multiprocessing.get_context("fork").Process(target=resume.main, args=(tmp_path, kind, "killed", BENCH))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    resume.main(tmp_path, kind, "resumed", BENCH)
    row = resume._compared(tmp_path, kind)
    assert row["equal when run twice"] and row["equal weights"] and row["equal losses"]
    told = resume._file(tmp_path, kind, "resumed", "json")
    (last,) = json.loads(told.read_text())
    told.write_text(json.dumps([last | {"digest": "another"}]))
    assert resume._compared(tmp_path, kind) == row | {"equal weights": False}
    told.write_text(json.dumps([last | {"made": resume.STEPS}]))  # it has begun afresh
    with pytest.raises(RuntimeError, match="made 6 steps"):
        resume._compared(tmp_path, kind)


def test_a_rival_that_is_not_there_is_told_and_one_that_is_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "missing", lambda packages: list(packages))
    found = bench()
    rivals.rivals(found)
    assert len(found.rows) == 12 and {row["failed"] for row in found.rows} == {"not measured: not installed"}

    def installed(network: Any, backend: str) -> Any:
        network.encoder.backend = backend
        return network

    library = types.SimpleNamespace(
        optimize_deberta=installed, optimize_deberta_training=lambda network, backend: network
    )
    monkeypatch.setattr(rivals, "missing", lambda packages: [])
    monkeypatch.setattr(rivals, "import_module", lambda name: library)
    network = DebertaV2Model(DebertaV2Config(**deberta(64, 1, 1, 0.1))).to(torch.bfloat16)
    given = (bench(), network, "disentangled_flash", rivals.disentangled_flash, 16)
    row = rivals._compared(*given, "forward")
    assert row["times faster"] > 0 and row["rival apart"] < 0.05 and row["ours apart"] < 0.05
    with pytest.raises(RuntimeError, match="leaves transformers' attention in place"):
        rivals._compared(*given, "both")


def test_no_row_begins_when_the_time_is_over_and_an_error_is_a_row(tmp_path: Path) -> None:
    found = bench(until=0.0, events=tmp_path / "events")
    tried(found, {"a": 1}, lambda: {"b": 2})
    tried(replace(found, until=math.inf), {"a": 2}, lambda: {"b": 1 // 0})
    assert found.rows[0] == {"a": 1, "failed": OUT_OF_TIME}
    assert found.rows[1]["failed"].startswith("ZeroDivisionError")
    assert [json.loads(line)["row"] for line in (tmp_path / "events").read_text().splitlines()] == found.rows


def test_a_part_that_fails_is_its_own_end_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(given: Bench) -> None:
        tried(given, {"a": 1}, lambda: {})
        raise RuntimeError("no kernel\n image")

    module = types.SimpleNamespace(fails=fails, works=lambda given: tried(given, {"a": 2}, lambda: {}))
    monkeypatch.setattr(worker, "import_module", lambda name: module)
    monkeypatch.setattr(worker, "PARTS", {"broken": Part("x", "fails", 9), "also": Part("x", "works", 9)})
    assert worker.main(tmp_path / "events", ["broken", "also"], "cpu", True, 60.0, {}) == 0
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [list(event) for event in events[1:]] == [
        *(["part"], ["row"], ["part", "seconds", "failed"]),
        *(["part"], ["row"], ["part", "seconds"]),
    ]
    assert events[3]["failed"] == "RuntimeError: no kernel image"


Worker = Callable[[str], list[str]]


@pytest.fixture
def pretended(tmp_path: Path) -> Worker:
    """The command of a process that tells, and does, what its Python says with `tell`, `part` and `parts`."""

    def made(script: str) -> list[str]:
        file = tmp_path / "worker.py"
        file.write_text(
            "import json, os, signal, sys, time\n"
            "def tell(**event):\n    open(sys.argv[1], 'a').write(json.dumps(event) + '\\n')\n"
            f"tell(about={CARD!r})\n"
            "parts = sys.argv[2:sys.argv.index('--device')]\n"
            f"for part in parts:\n    tell(part=part)\n    tell(row={{'precision': part, 'TFLOPS': 1.0}})\n{script}"
            "    tell(part=part, seconds=1.0)\n"
        )
        return [sys.executable, str(file)]

    return made


def test_a_process_that_crashes_costs_its_part_and_another_goes_on(pretended: Worker, tmp_path: Path) -> None:
    crash = pretended("    if part == 'parity': os.kill(os.getpid(), signal.SIGSEGV)\n")
    result = command.main(["parity", "deberta"], "cpu", True, 1.0, tmp_path / "out", crash)
    assert list(result["parts"]) == ["card", "parity", "deberta"]
    assert result["parts"]["parity"]["failed"] == "the process ended with exit code -11"
    assert all(len(part["rows"]) == 1 for part in result["parts"].values())
    assert result == json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert "the process ended" in (tmp_path / "out" / "gpu.md").read_text()
    again = command.main(["deberta"], "cpu", True, 1.0, tmp_path / "out", pretended(""))
    assert again["parts"]["parity"] == result["parts"]["parity"]  # of the call before, on the same card


def test_a_part_that_hangs_is_ended_with_its_children(
    pretended: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "limit", lambda name, tiny: 0.2)
    monkeypatch.setattr(command, "GRACE", 0.3)
    hang = pretended("    if part == 'parity': time.sleep(60)\n")
    result = command.main(["parity", "deberta"], "cpu", True, 1.0, None, hang)
    assert result["parts"]["parity"]["failed"] == OUT_OF_TIME
    assert "failed" not in result["parts"]["deberta"]


def test_a_process_that_never_begins_is_not_started_again(pretended: Worker, tmp_path: Path) -> None:
    begun = [
        sys.executable,
        "-c",
        "import pathlib, sys; pathlib.Path(sys.argv[1] + '.n').open('a').write('x'); sys.exit(2)",
    ]
    result = command.main(["parity"], "cpu", True, 1.0, tmp_path / "out", begun)
    assert {part["failed"] for part in result["parts"].values()} == {"not measured: the process ended with exit code 2"}
    assert not (tmp_path / "out").exists()  # nothing is known that could be written over what was


def test_training_after_other_products_may_give_equal_bits(pretended: Worker) -> None:
    asks = pretended("    tell(row={'asked': os.environ['CUBLAS_WORKSPACE_CONFIG']})\n")
    rows = command.main([], "cpu", True, 1.0, None, asks)["parts"]["card"]["rows"]
    assert rows[-1] == {"asked": ":4096:8"}  # before the first product: PyTorch looks at it once


def test_time_that_is_over_leaves_the_rest_out(pretended: Worker, tmp_path: Path) -> None:
    result = command.main(["parity"], "cpu", True, -1.0, None, pretended(""))
    assert {part["failed"] for part in result["parts"].values()} == {OUT_OF_TIME}


def test_a_goal_is_met_by_all_figures_missed_by_one_and_not_measured_without() -> None:
    goal = Goal("fast", "rivals", ("times",), 1.5, where=(("way", "both"),), rows=2)

    def told(*rows: dict[str, Any], **part: Any) -> tuple[str, str]:
        line = goal.told({"rivals": {"rows": [{"way": "both"} | row for row in rows]} | part})
        return line["verdict"], line["found"]

    other = {"way": "forward", "times": 0.1}
    assert told({"times": 1.5}, {"times": 2.0}, other) == ("met", "1.5")
    assert told({"times": 1.4}, {"times": 2.0}) == ("missed", "1.4")
    assert told({"times": 1.4}, {"failed": OUT_OF_TIME}) == ("missed", "1.4")
    assert told({"times": 1.6}, {"failed": OUT_OF_TIME}) == ("not measured", "out of time; 1 of 2 figures, all kept")
    assert told(failed="RuntimeError: x") == ("not measured", "RuntimeError: x")
    assert goal.told({})["found"] == "not asked for"
    assert {each.part for each in goals((512, 1024, 2048))} <= PARTS.keys()


def imported(file: Path, seen: set[Path]) -> set[str]:
    """Packages of others that a file's modules import when they are imported, through all of ours."""
    if file in seen:
        return set()
    seen.add(file)
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
        for name in names:
            if name.split(".")[0] not in ("benchmarks", "pipeline"):
                found.add(name.split(".")[0])
                continue
            for own in (ROOT / f"{name.replace('.', '/')}.py", ROOT / name.replace(".", "/") / "__init__.py"):
                if own.is_file():
                    found |= imported(own, seen)
    return found - sys.stdlib_module_names


def test_what_is_needed_is_what_is_imported() -> None:
    seen: set[Path] = set()
    found = set().union(*(imported(file, seen) for file in (ROOT / "benchmarks" / "gpu").glob("*.py")))
    known = {name.split(".")[0] for name in REQUIRED} | {UNUSED}
    # What these bring with them: pydantic its core, transformers tqdm, packaging and yaml.
    assert found - known <= {"pydantic_core", "tqdm", "packaging", "yaml", "typing_extensions"}


def test_what_is_missing_is_told_and_polars_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"bitsandbytes", "flashdeberta", UNUSED}
    monkeypatch.setattr(parts, "find_spec", lambda name: None if name in absent else sys.__spec__)
    monkeypatch.setattr(command, "missing", parts.missing)
    assert command.told_missing(["card", "resume", "rivals"]) == [
        "not installed: bitsandbytes; not measured, as a whole or in part: resume",
        "not installed: flashdeberta; not measured, as a whole or in part: rivals",
        "not installed: polars; no part calls it, a stand-in takes its place",
    ]
    absent.add("torch")
    assert command.told_missing(["card"])[0] == "not installed, and nothing runs without: torch"
    for name in list(sys.modules):
        if name.split(".")[0] == UNUSED:
            monkeypatch.delitem(sys.modules, name)
    unused.stand_in()
    module: Any = sys.modules[UNUSED]
    assert isinstance(module, unused.Unused) and module.DataFrame is module.Series.anything
    monkeypatch.setattr(parts, "find_spec", lambda name: sys.modules[name].__spec__)
    assert parts.missing((UNUSED,)) == [UNUSED]


def test_batches_are_halved_until_they_fit() -> None:
    def failed() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def attempt(rows: int) -> int:
        if rows > fits:
            raise torch.OutOfMemoryError("full") if rows % 2 else RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")
        return rows

    fits = 3
    assert fitting(16, attempt) == (2, 2)
    fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        fitting(16, attempt)
    asked: list[int] = []
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        fitting(16, lambda rows: asked.append(rows) or failed())
    assert asked == [16]


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
