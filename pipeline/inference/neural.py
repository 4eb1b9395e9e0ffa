"""What an encoder or decoder fold model says about some rows, on the CPU, on one GPU, or on several side by side."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from scipy.special import softmax
from torch import nn

from pipeline.competitions.task import Competition
from pipeline.data.batches import inference_batches, pad
from pipeline.data.features import swapped
from pipeline.data.text import Encoded, encode, views_of
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.models.loading import DTYPES, fresh_backbone, load_backbone
from pipeline.models.network import checksum, decoder_network, encoder_network
from pipeline.models.pretrained import backbone_facts, base_folder
from pipeline.models.tokenizer import load_tokenizer

FORMAT = 1
"""Raised whenever members saved by older code can no longer be read."""
ADAPTER, HEAD, WEIGHTS, SOURCE = "adapter", "head.safetensors", "model.safetensors", "network.py"


def predict_neural(
    folder: Path, rows: pl.DataFrame, competition: Competition, devices: list[str] | None = None
) -> np.ndarray:
    """(rows, classes) probabilities of the fold model in `folder`; its backbone lies beside it, below the same root.

    `devices` are torch's names, by default every GPU, else the CPU.

    Raises: PodiumError where files are missing, broken, or do not belong together.
    """
    about = _about(folder, competition)
    settings = about["settings"]
    root, name = folder.parents[2], settings["backbone"]
    base = base_folder(root, name, settings["inference"]["precision"])
    if (found := backbone_facts(root, name)["sha256"]) != about["backbone"]:
        raise PodiumError(
            f"{folder}: trained on another backbone {name} ({about['backbone'][:8]}, here {found[:8]}); run `dvc repro`"
        )
    tokenizer = load_tokenizer(base)
    asked = [rows, swapped(rows, competition.kind)] if settings["inference"]["swap"] else [rows]
    parts = [encoded_rows(each, settings, tokenizer, competition) for each in asked]
    everything = Encoded([ids for part in parts for ids in part.ids], parts[0].views, {})
    opened = _encoder if settings["kind"] == "encoder" else _decoder
    logits = logits_of(
        everything,
        lambda device: opened(folder, about, base, competition, device),
        int(tokenizer.pad_token_id),
        settings["inference"]["tokens_per_batch"],
        len(competition.classes),
        devices or available_devices(),
    )
    probabilities = softmax(logits.astype(np.float64), axis=1)
    if len(asked) == 1:
        return probabilities
    straight, mirrored = np.split(probabilities, 2)
    return (straight + competition.mirrored(mirrored)) / 2


def encoded_rows(rows: pl.DataFrame, settings: dict[str, Any], tokenizer: Any, competition: Competition) -> Encoded:
    """`rows` as the sequences that a member with these settings reads."""
    views = views_of(competition.kind, settings["input"] == "siamese")
    return encode(rows, tokenizer, settings["kind"], views, settings["max_tokens"])


def available_devices() -> list[str]:
    """Every GPU that torch sees, else the CPU."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


_opening = threading.Lock()
"""Loading switches torch's defaults for a moment; two networks at a time would see each other's."""


def logits_of(
    encoded: Encoded,
    opened: Callable[[str], tuple[nn.Module, Callable[[], None]]],
    filler: int,
    budget: int,
    classes: int,
    devices: list[str],
) -> np.ndarray:
    """(rows, classes) float32 logits. Each device opens a network of its own and takes the next batch when it is free.

    `opened` gives the network on a device, and what to call when it is no longer needed. A device that fails stops all.
    """
    logits = np.full((len(encoded), classes), np.nan, dtype=np.float32)
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    for batch in inference_batches(encoded.lengths(), encoded.views, budget):
        waiting.put(batch)
    failures: list[BaseException] = []

    def work(device: str) -> None:
        try:
            with _opening:
                network, close = opened(device)
            try:
                while not failures:
                    rows = waiting.get_nowait()
                    logits[rows] = batch_logits(network, encoded, rows, filler, device).cpu().numpy()
            finally:
                close()
        except queue.Empty:
            return
        except torch.OutOfMemoryError:
            line = f"out of memory on {device}; lower inference.tokens_per_batch (now {budget}) or max_tokens"
            failures.append(PodiumError(line))
        except BaseException as error:
            failures.append(error)

    if len(devices) == 1:
        work(devices[0])
    else:
        threads = [threading.Thread(target=work, args=(device,)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return logits


def batch_logits(network: nn.Module, encoded: Encoded, rows: np.ndarray, filler: int, device: str) -> torch.Tensor:
    """(rows, classes) logits of some rows, without gradients."""
    with torch.inference_mode():
        return network(*batch_tensors(encoded, rows, filler, device)).float()


def batch_tensors(encoded: Encoded, rows: np.ndarray, filler: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows * views, length) ids and mask of some rows."""
    ids, mask = pad([encoded.ids[row * encoded.views + view] for row in rows for view in range(encoded.views)], filler)
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _about(folder: Path, competition: Competition) -> dict[str, Any]:
    file = folder / "member.json"
    about: dict[str, Any] = read_json(file)
    for key, expected in {"format": FORMAT, "classes": list(competition.classes)}.items():
        if about.get(key) != expected:
            raise PodiumError(f"{file}: {key}: expected {expected}, found {about.get(key)}")
    return about


def _encoder(
    folder: Path, about: dict[str, Any], base: Path, competition: Competition, device: str
) -> tuple[nn.Module, Callable[[], None]]:
    settings, file = about["settings"], folder / WEIGHTS
    source = (folder / SOURCE).read_text(encoding="utf-8") if settings["network"] else None
    backbone = fresh_backbone(base, "cpu", settings["attention"])
    network = encoder_network(backbone, settings, competition.kind, len(competition.classes), source)
    network.to(DTYPES[settings["inference"]["precision"]])
    try:
        load_model(network, file, strict=True)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise PodiumError(f"{file}: does not fit its network: {' '.join(str(error).split())[:200]}") from error
    return network.eval().to(device), lambda: None


_idle: dict[tuple[Path, str, str, str], list[nn.Module]] = {}
"""Bases without an adapter, by folder, content hash, precision and device: the next fold need not load one again."""
_idle_lock = threading.Lock()


def _borrowed(key: tuple[Path, str, str, str]) -> nn.Module:
    """A base that nobody else uses until it stands in `_idle` again; one that never comes back is forgotten."""
    base, _, precision, device = key
    with _idle_lock:
        for other in [each for each in _idle if each[3] == device and each != key]:
            del _idle[other]
        if _idle.get(key):
            return _idle[key].pop()
    return load_backbone(base, precision, device)


def _decoder(
    folder: Path, about: dict[str, Any], base: Path, competition: Competition, device: str
) -> tuple[nn.Module, Callable[[], None]]:
    from peft import PeftModel  # encoders do without

    precision, file = about["settings"]["inference"]["precision"], folder / HEAD
    key = (base, about["backbone"], precision, device)
    backbone: Any = _borrowed(key)
    try:
        adapted = PeftModel.from_pretrained(backbone, folder / ADAPTER)
        tensors = load_file(file)
        network = decoder_network(adapted, about["settings"], competition.kind, len(competition.classes))
        network.head.load_state_dict(tensors)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise PodiumError(f"{folder}: the adapter does not fit the base {base}: {line}") from error
    if checksum(tensors) != about["head"]:
        raise PodiumError(f"{file}: not the head that belongs to this adapter")

    def close() -> None:
        adapted.unload()
        with _idle_lock:
            _idle.setdefault(key, []).append(backbone)

    return network.eval().to(device), close
