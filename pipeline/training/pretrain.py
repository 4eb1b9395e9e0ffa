"""Trains a backbone further on the competition's own text, before any label: within-task pretraining.

python -u -m stages.pretrain --backbone small

Text of the holdout is never seen, so that the holdout shows what unseen text costs (Gururangan et al. 2020,
arXiv 2004.10964, call the method TAPT).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from pipeline.artifacts import FACTS
from pipeline.competitions.task import Competition
from pipeline.data.text import encode
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.models.backbones.loading import load_backbone, reading
from pipeline.models.backbones.obtain import contents_hash
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.section import from_json
from pipeline.settings.backbones import Pretrain
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.devices.device import Device, resolve_precision, training_device
from pipeline.training.gradients import within_memory
from pipeline.training.loop import TrainingRun, fit
from pipeline.training.objectives.language import CausalModel, Language, MaskedModel
from pipeline.training.progress import forecast
from pipeline.training.seeds import seed_of

HELD_OUT, MOST_HELD_OUT = 0.02, 256
"""Share and largest number of the sequences that perplexity is measured on."""
SHORTEST = 16
"""A shorter rest of a text is left out."""
WHOLE = 10**9


@dataclass(frozen=True)
class PretrainStart:
    """Everything that decides a backbone's pretraining, as artifacts/start_pretrain/<name>.json keeps it."""

    label: str
    settings: Pretrain | None
    """None where there is no network."""
    threads: int = 1
    backbone: str = ""
    """Hash of its contents."""
    files: tuple[str, ...] = ()
    """Hashes of the files of more text."""
    code: str = ""
    libraries: dict[str, str] = field(default_factory=dict)


def read_pretrain_start(file: Path) -> PretrainStart:
    """Returns the contents of start_pretrain/<name>.json.

    Raises: PodiumError for a key that is missing or unknown.
    """
    return from_json(PretrainStart, read_json(file))


def pretrain(
    backbone: Path,
    rows: pl.DataFrame,
    start: PretrainStart,
    competition: Competition,
    folder: Path,
    state: Checkpoint,
    token_cache: Path | None = None,
) -> dict[str, Any]:
    """Trains the backbone in `backbone` on the text of `rows` as `start` says, and writes the new one into `folder`.

    Its fold models will find the rows' token ids below the folder `token_cache`.

    Returns what metrics and page tell: sequences, tokens, perplexity before and after, learning curve.
    """
    settings, label = start.settings, start.label
    assert settings is not None
    training = settings.as_training()
    facts, tokenizer = read_json(backbone / FACTS), load_tokenizer(backbone)
    device = training_device(resolve_precision("auto")[0], start.threads)
    masked = settings.masked if facts["family"] == "encoder" else None
    sequences = text_sequences(rows, competition, tokenizer, facts["family"], settings, token_cache)
    draw = np.random.default_rng([settings.seed, 1]).permutation(len(sequences))
    held = draw[: max(1, min(MOST_HELD_OUT, int(HELD_OUT * len(sequences))))]

    def objective(places: np.ndarray) -> Language:
        chosen = [sequences[place] for place in places]
        sizes = settings.batches.rows_per_step, settings.batches.tokens_per_batch
        return Language(chosen, tokenizer, masked, *sizes, settings.seed, device.name, device.share.ranks)

    learned, judged = objective(np.sort(draw[len(held) :])), objective(held)
    tokens = int(sum(map(len, learned.sequences)))
    print(
        f"{label}: {len(learned.sequences)} sequences, {tokens} tokens, {device.precision} on {device.name}", flush=True
    )
    torch.manual_seed(seed_of(settings.seed, 4))
    with within_memory(label, training):
        network = _network(backbone, masked is not None, settings.attention, device)
        before = judged.perplexity(network.eval())
    run = TrainingRun(network, learned, training, device, state, label)
    if masked is not None and settings.head_steps:
        _warm_up_head(run, settings.head_steps)
    forecast(network, learned, training, device, label, Path())
    record = fit(run).record
    after = judged.perplexity(network)
    print(f"{label}: perplexity {before:.1f} before, {after:.1f} after", flush=True)
    told = {
        "sequences": len(learned.sequences),
        "tokens": tokens,
        "perplexity_before": before,
        "perplexity_after": after,
    }
    if device.share.leads:
        _save(network, backbone, folder, facts)
        write_json(folder / "pretraining.json", told | {"curve": record.curve()})
        write_json(folder / FACTS, facts | {"sha256": contents_hash(folder)})
    return told


def text_sequences(
    rows: pl.DataFrame,
    competition: Competition,
    tokenizer: Any,
    family: str,
    settings: Pretrain,
    token_cache: Path | None = None,
) -> list[np.ndarray]:
    """Returns all different texts in at most `max_tokens` each: the prompt with each side, as fine-tuning shows them.

    A longer text becomes several sequences, each starting with the family's first token, or is cut.

    Raises: PodiumError where there is no text, or a file of more text is missing or has no column `text`.
    """
    most = settings.max_tokens if settings.texts == "cut" else WHOLE
    texts = encode(rows, tokenizer, family, competition, True, most, token_cache).ids
    texts += [np.array(tokenizer.encode(text), dtype=np.int32) for file in settings.files for text in _more(Path(file))]
    first = tokenizer.cls_token_id if family == "encoder" else tokenizer.bos_token_id
    start = np.array([] if first is None else [first], dtype=np.int32)
    width = settings.max_tokens - len(start)
    unique: dict[bytes, np.ndarray] = {}
    for ids in texts:
        body = ids[len(start) :] if len(start) and len(ids) and ids[0] == first else ids
        for begin in range(0, len(body), width):
            piece = body[begin : begin + width]
            if begin == 0 or len(piece) >= SHORTEST:
                unique.setdefault(piece.tobytes(), np.concatenate([start, piece]))
    if not unique:
        raise PodiumError("the training rows hold no text to train on")
    return list(unique.values())


def _more(file: Path) -> list[str]:
    if not file.is_file():
        raise PodiumError(f"{file}: no such file; backbones.*.pretrain.files in params.yaml names it")
    try:
        if file.suffix == ".txt":
            return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return pl.read_parquet(file, columns=["text"], glob=False)["text"].drop_nulls().to_list()
    except UnicodeDecodeError as error:
        raise PodiumError(f"{file}: expected UTF-8 text: {error}") from None
    except pl.exceptions.PolarsError as error:
        raise PodiumError(f'{file}: expected a column "text": {" ".join(str(error).split())[:120]}') from None


def _network(backbone: Path, masked: bool, attention: str, device: Device) -> nn.Module:
    if masked:
        return MaskedModel(load_backbone(backbone, "fp32", device.name, attention=attention)).to(device.name)
    options = reading(backbone, begin="model.")
    options["config"].use_cache = False  # keys and values for a next token, which nobody asks for
    causal = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32, **options)
    return CausalModel(causal).to(device.name)


def _warm_up_head(run: TrainingRun, steps: int) -> None:
    """Trains the fresh head first, alone: its early gradients would disturb the network."""
    backbone: Any = run.network.backbone
    backbone.requires_grad_(False)
    fit(replace(run, label=f"{run.label}, head", part="head", steps=steps))
    backbone.requires_grad_(True)


def _save(network: nn.Module, backbone: Path, folder: Path, facts: dict[str, Any]) -> None:
    """Writes the trained network without the masked model's head, beside the tokenizer's files as they are."""
    for file in sorted(backbone.iterdir()):
        weights = file.name.startswith(("model", "pytorch_model")) or file.name in ("config.json", FACTS)
        if file.is_file() and not weights:
            shutil.copyfile(file, folder / file.name)
    trained: Any = network.backbone
    trained.cpu().save_pretrained(folder, save_original_format=False)  # under its own names, as a package's base
