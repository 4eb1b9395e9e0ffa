"""What the kernel's planner wants to know of a member: how much work a token is to it, and what its passes bring.

No seconds: those depend on the machine, and the kernel measures them where it runs. python -m stages.package
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.features import field_characters
from pipeline.ensemble.row_priority import divergence
from pipeline.files import read_json
from pipeline.inference.passes import FIRST, combined, passes_of
from pipeline.inference.predict import open_member
from pipeline.models.saved import read_member
from pipeline.settings.finetuning import NetworkSettings


def work_of(package: Path, name: str, member: dict[str, Any], parity: pl.DataFrame, competition: Competition) -> dict:
    """`passes`, `gains` and `work` for a member's entry in the manifest; its files lie in `package` already.

    gains: pass beyond the first -> expected gain in log loss of the member alone, on the rows of `parity`. work, for
    networks: parameters of the layers, their number and width, bytes to load, sequences and their longest length.
    """
    place = package / "members" / name / f"fold{member['folds'][0]}"
    settings = read_member(place).settings
    passes = passes_of(settings)
    rows = parity.select("id", *competition.kind.fields)
    found = {"passes": list(passes), "gains": _gains(package, place, passes, rows, competition)}
    if not isinstance(settings, NetworkSettings):
        return found
    from pipeline.models.backbones.tokenizer import load_tokenizer  # transformers is slow to load

    base = Artifacts(package).base(settings.backbone, member["precision"])
    config = read_json(base / "config.json")
    texts = pl.concat([rows[field].explode() for field in competition.kind.fields]).drop_nulls().to_list()
    tokens = sum(map(len, load_tokenizer(base)(texts, add_special_tokens=False)["input_ids"])) if texts else 1
    characters = float(np.sum(list(field_characters(rows, competition.kind.fields).values())))
    folders = {place, base}
    return found | {
        "work": {
            "parameters": _layer_parameters(config),
            "layers": config["num_hidden_layers"],
            "hidden": config["hidden_size"],
            "bytes": sum(file.stat().st_size for folder in folders for file in folder.rglob("*.safetensors")),
            "siamese": settings.input == "siamese",
            "max_tokens": settings.max_tokens,
            "long_tokens": settings.inference.long_tokens,
            "characters_per_token": round(max(characters, 1.0) / max(tokens, 1), 4),
        }
    }


def _layer_parameters(config: dict[str, Any]) -> int:
    """Weights that every token is multiplied with: all but the embeddings."""
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    keys = config.get("num_key_value_heads") or heads
    gates = 3 if config.get("hidden_act", "").startswith(("silu", "gelu_pytorch")) else 2
    attention = 2 * hidden * hidden + 2 * hidden * hidden * keys // heads
    return int(config["num_hidden_layers"] * (attention + gates * hidden * middle))


def _gains(
    package: Path, place: Path, passes: tuple[str, ...], rows: pl.DataFrame, competition: Competition
) -> dict[str, float]:
    """Pass -> mean divergence of the answer with it from the answer without."""
    if passes == (FIRST,):
        return {}
    member = open_member(place, Artifacts(package), competition)
    try:
        parts = {which: member.predict(rows, which) for which in passes}
    finally:
        member.close()
    gains, known = {}, {FIRST: parts[FIRST]}
    for which in passes[1:]:
        more = known | {which: parts[which]}
        gains[which] = round(float(divergence(combined(more), combined(known)).mean()), 6)
        known = more
    return gains
