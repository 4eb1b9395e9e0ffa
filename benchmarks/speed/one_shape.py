"""One run of benchmarks.speed.shapes: builds a network of the given shape, asks it one batch, trains it one step.

python -m benchmarks.speed.one_shape '{"config": {...}, "layers": 2, "tokens": 768, ...}'

The last line of its output is the result as JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModel

from pipeline.competitions.registry import load_competition
from pipeline.config import member_settings
from pipeline.data.text import Encoded
from pipeline.inference.forward import batch_logits
from pipeline.members.decoder import adapted_base
from pipeline.members.encoder import trainable_backbone
from pipeline.models.backbones.loading import DTYPES
from pipeline.models.network import decoder_network, encoder_network
from pipeline.settings.decoder import Decoder
from pipeline.settings.encoder import Encoder
from pipeline.settings.finetuning import Training
from pipeline.training.devices.device import Device, resolve_precision, training_device
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.optim import adamw, step
from pipeline.validation import read_yaml

TIMED = 2
"""Steps and batches; the faster one counts, for the first pays for what is set up once."""
COMPETITION = load_competition("lmsys")
TASK, CLASSES = COMPETITION.kind, len(COMPETITION.outputs)


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Memory (GB), seconds and tokens per second of one inference batch and one training step."""
    settings = preset_member(Path(asked["preset"]), asked["member"])
    device = training_device(resolve_precision("auto")[0], asked["threads"])
    on_gpu = device.name != "cpu"
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(asked["config"], Path(folder), device.name)
        network = (encoder if settings.kind == "encoder" else decoder)(Path(folder), settings, device.name)
    views = 2 if settings.input == "siamese" else 1
    budget = settings.training.batches.tokens_per_batch
    rows = max(1, budget // (views * asked["tokens"])) if on_gpu else 1
    objective = random_rows(rows, views, asked, device.name, budget)
    numbers, whole = np.arange(rows), objective.encoded
    # Asked first: after training, the process would still hold memory that it no longer needs.
    inference = settings.inference.precision if on_gpu or settings.kind == "decoder" else "fp32"
    if inference in DTYPES:  # as the kernel has it; a CPU is slow in fp16
        network.to(DTYPES[inference])
    answered = measured(lambda: batch_logits(network, whole, numbers, 0, device.name), on_gpu)
    if inference in DTYPES:
        network.float()
    network.train()
    trained = measured(stepper(network, objective, settings.training, device), on_gpu)
    tokens = rows * views * asked["tokens"]
    for each in (trained, answered):
        each["tokens_per_second"] = round(tokens / each["seconds"], 1)
    count = sum(each.numel() for each in network.parameters() if each.requires_grad)
    about = {"layers": asked["layers"], "rows": rows, "views": views, "tokens": asked["tokens"]}
    about |= {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "trained_parameters": count}
    return {
        **about,
        "inference": answered | {"precision": inference},
        "training": trained | {"precision": device.precision},
    }


def preset_member(preset: Path, name: str) -> Any:
    """Returns the settings of an encoder or decoder of a preset."""
    return member_settings(read_yaml(preset)["members"][name], name)


def write_weights(config: dict[str, Any], folder: Path, device: str) -> None:
    """A folder in Hugging Face layout with random fp16 weights, one file per layer: memory holds one at a time."""
    built = AutoConfig.for_model(**config)
    with torch.device("meta"):
        network = AutoModel.from_config(built)
    built.architectures = [type(network).__name__]
    built.save_pretrained(folder)
    files: dict[str, list[str]] = {}
    for name in network.state_dict():
        layer = next((part for part in name.split(".") if part.isdigit()), "rest")
        files.setdefault(f"model-{layer}.safetensors", []).append(name)
    shapes = {name: each.shape for name, each in network.state_dict().items()}
    for file, names in files.items():
        tensors = {name: torch.empty(shapes[name], dtype=torch.float16, device=device) for name in names}
        for name, each in tensors.items():
            norm = each.ndim == 1 and "bias" not in name
            tensors[name] = (each.fill_(1.0) if norm else each.normal_(0.0, 0.02)).cpu()
        save_file(tensors, folder / file, {"format": "pt"})
    index = {name: file for file, names in files.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def encoder(folder: Path, settings: Encoder, device: str) -> nn.Module:
    """A network as training has it."""
    backbone = trainable_backbone(folder, settings, device)
    return encoder_network(backbone, settings, TASK, CLASSES, None).to(device)


def decoder(folder: Path, settings: Decoder, device: str) -> nn.Module:
    """A base with adapters and head as training has them."""
    return decoder_network(adapted_base(folder, settings, device), settings, COMPETITION).to(device)


def random_rows(
    rows: int, views: int, asked: dict[str, Any], device: str, budget: int, per_step: int | None = None
) -> Supervised:
    """Rows of full length, of any tokens and classes, in steps of `per_step` (by default all in one)."""
    draw = np.random.default_rng(0)
    ids = [
        draw.integers(5, asked["config"]["vocab_size"], asked["tokens"], dtype=np.int32) for _ in range(rows * views)
    ]
    encoded = Encoded(ids, views, {}, np.zeros(rows, dtype=bool))
    labels = draw.integers(0, CLASSES, rows)
    return Supervised(encoded, labels, COMPETITION.family, 0, device, per_step or rows, budget, 0.0, 0)


def stepper(network: nn.Module, objective: Supervised, training: Training, device: Device) -> Callable[[], None]:
    """A call that makes one step of the optimiser, with the parts of the loop in the loop's order."""
    optimizer, scaler = adamw(network, training), device.scaler()
    trained = [each for each in network.parameters() if each.requires_grad]

    def call() -> None:
        for rows in objective.epoch(0)[0]:
            with device.forward():
                loss = objective.loss(network, objective.batch(rows, 0)).minimised
            scaler.scale(loss / len(objective.labels)).backward()
        step(optimizer, scaler, trained, training.schedule.rate, training.clip)

    return call


def measured(call: Callable[[], object], on_gpu: bool, times: int = TIMED) -> dict[str, float]:
    """Peak GB (of the GPU, or of the process), and the seconds of the fastest of `times` calls.

    `cpu_seconds` are those of all threads: on a machine that does other work too they say more.
    """
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        _forget_peak()
    seconds, cpu = [], []
    for _ in range(times):
        began, used = time.perf_counter(), time.process_time()
        call()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    peak = torch.cuda.max_memory_allocated() if on_gpu else _peak()
    return {"gb": round(peak / 1e9, 3), "seconds": round(min(seconds), 6), "cpu_seconds": round(min(cpu), 3)}


def _forget_peak() -> None:
    """Lets the process's peak memory start anew, where Linux allows it: building is not what is measured."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what loading freed would count as well
        file.write_text("5")


def _peak() -> int:
    """Bytes of the process's peak memory."""
    file = Path("/proc/self/status")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("asked", type=json.loads, help="the shape, as JSON")
    print(json.dumps(main(parser.parse_args().asked)))
