"""What the parts of benchmarks.gpu share: the device, its own matmul rate, sizes, and batches that fit its memory."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.speed.networks import SHAPES
from benchmarks.speed.one_shape import measured, preset_member
from pipeline.errors import PodiumError, ran_out
from pipeline.models.backbones.loading import DTYPES
from pipeline.settings.decoder import Decoder, Lora
from pipeline.training.devices.device import Device, training_device

Found = TypeVar("Found")
Row = dict[str, Any]
PRESETS = Path("pipeline/presets")
LARGE_GB = 60
"""A GPU with more memory gets the preset `server`, one with less `workstation`."""
HALVES = ("bf16", "fp16")
OUT_OF_TIME = "not measured: out of time"
TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 512,
}
"""In place of a shape's own numbers, to try the command out on a CPU."""


@dataclass(frozen=True)
class Bench:
    """Where and how large."""

    device: str
    tiny: bool
    rates: dict[str, float] = field(default_factory=dict)
    """Measured TFLOPS of large square matmuls, by precision."""
    until: float = math.inf
    """The moment of the monotonic clock after which no row begins."""
    events: Path | None = None
    """The file that every row is told to, as a line of JSON."""
    rows: list[Row] = field(default_factory=list)
    """What the part at work has found."""

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Tokens per sequence."""
        return (16, 24, 32) if self.tiny else (512, 1024, 2048)

    @property
    def by_worth(self) -> tuple[int, int, int]:
        """The same lengths, that of the goals first: time may run out."""
        short, middle, long = self.lengths
        return middle, short, long

    @property
    def large(self) -> bool:
        """Whether the GPU has much memory."""
        return self.on_gpu and torch.cuda.get_device_properties(0).total_memory > LARGE_GB * 1e9

    @property
    def preset(self) -> Path:
        return PRESETS / ("server.yaml" if self.large else "workstation.yaml")

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of benchmarks.speed.networks.SHAPES[name], or a tiny one of its kind."""
        config = SHAPES[name]["config"] | {"num_hidden_layers": SHAPES[name]["layers"]}
        if not self.tiny:
            return config
        return config | TINY | ({"num_key_value_heads": 2} if "num_key_value_heads" in config else {})

    def settings(self, member: str) -> Any:
        """Of a member of the preset, with batches that suit the size."""
        settings = preset_member(self.preset, member)
        if not self.tiny:
            return settings
        training = replace(settings.training, batches=replace(settings.training.batches, tokens_per_batch=128))
        lora = {"lora": Lora(rank=4, alpha=4.0, dropout=0.05)} if isinstance(settings, Decoder) else {}
        inference = replace(settings.inference, tokens_per_batch=128)
        return replace(settings, training=training, inference=inference, **lora)

    def training(self, precision: str) -> Device:
        """The device as Podium's training has it, set up for equal bits."""
        if self.on_gpu:
            return training_device(precision, torch.get_num_threads())
        return Device("cpu", precision)

    def measured(self, call: Callable[[], object], times: int) -> dict[str, float]:
        """See benchmarks.speed.one_shape.measured; one call more, before the others, pays for what is set up once."""
        call()
        return measured(call, self.on_gpu, 1 if self.tiny else times)


def card(bench: Bench) -> None:
    """The rate of large square matmuls in each precision that networks run in: what the parts' shares are shares of."""
    size, calls = (256, 2) if bench.tiny else (8192, 10)
    for precision in HALVES if bench.on_gpu else (*HALVES, "fp32"):
        tried(bench, {"precision": precision, "size": size}, lambda name=precision: _rate(bench, name, size, calls))
    bench.rates.update({row["precision"]: row["TFLOPS"] for row in bench.rows if "TFLOPS" in row})


def _rate(bench: Bench, precision: str, size: int, calls: int) -> Row:
    one, other = (torch.randn(size, size, device=bench.device).to(DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(one)

    def multiply() -> None:
        for _ in range(calls):
            torch.mm(one, other, out=out)

    seconds = bench.measured(multiply, 3)["seconds"]
    return {"TFLOPS": rounded(2 * size**3 * calls / seconds / 1e12)}


def about(device: str, tiny: bool) -> dict[str, Any]:
    """Returns what machine and libraries these are.

    Raises: PodiumError where there is no GPU.
    """
    if device == "cpu":
        return {"card": "cpu", "torch": torch.__version__, "cuda": torch.version.cuda, "tiny": tiny}
    if not torch.cuda.is_available():
        raise PodiumError("no CUDA GPU here; --tiny --device cpu tries the command out without one")
    found = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "tiny": tiny}
    found["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
    found["cudnn"] = torch.backends.cudnn.version()
    packages = ("transformers", "peft", "bitsandbytes", "triton", "disentangled-flash", "flashdeberta")
    return found | {name: _version(name) for name in packages}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def fitting(rows: int, attempt: Callable[[int], Found]) -> tuple[int, Found]:
    """What `attempt` found with so many rows, or with half as many, and so on, until they fit the memory.

    Raises: what `attempt` raised where a single row does not fit.
    """
    while True:
        try:
            return rows, attempt(rows)
        except Exception as error:
            if rows == 1 or not ran_out(error):  # cuBLAS and the CUDA runtime have errors of their own
                raise
        rows //= 2
        released()  # only behind the except block is what the attempt held free


def tried(bench: Bench, facts: Row, measure: Callable[[], Row]) -> None:
    """Adds a row to the part's, `facts` with what was measured, or with the reason why nothing was, and tells it."""
    if time.monotonic() > bench.until:
        row = facts | {"failed": OUT_OF_TIME}
    else:
        try:
            row = facts | measure()
        except Exception as error:
            row = facts | {"failed": reason(error)}
        released()
    bench.rows.append(row)
    print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    tell(bench.events, {"row": row})


def tell(events: Path | None, event: Row) -> None:
    """Appends a line to the file of events; the process that watches over this one reads it."""
    if events:
        with events.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event, default=str) + "\n")


def reason(error: BaseException) -> str:
    """One short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def released() -> None:
    """Gives memory that nobody uses back, so that the next row meets an empty GPU."""
    if torch.cuda.is_available():
        gc.collect()
        with suppress(RuntimeError):  # of a GPU that has failed; what it failed at has said so
            torch.cuda.empty_cache()


def rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")
