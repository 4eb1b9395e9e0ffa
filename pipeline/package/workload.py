"""Measures what the kernel's planner must know of a member: how much work a token is to it, what its passes bring.

No seconds: those depend on the machine, and the kernel measures them where it runs.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.competitions.task import Competition
from pipeline.data.prompt import question_count
from pipeline.data.rows import field_characters
from pipeline.files import read_json
from pipeline.inference.passes import FIRST, combined, passes_of
from pipeline.inference.predict import open_member
from pipeline.models.backbones.foresight import layer_parameters
from pipeline.models.saved import read_member
from pipeline.settings.finetuning import NetworkSettings


def member_workload(
    package: Artifacts, name: str, member: dict[str, Any], parity: pl.DataFrame, competition: Competition
) -> dict[str, Any]:
    """Returns `passes`, `gains` and `work` for a member's entry in the manifest; its files lie in `package` already.

    gains: pass beyond the first -> expected gain of the member alone, on the rows of `parity`. work, for
    networks: parameters of the layers, their number and width, bytes to load, sequences and their longest length.
    """
    model = package.model(name, member["folds"][0])
    settings = read_member(model).settings
    passes = passes_of(settings)
    rows = parity.select("id", *competition.kind.fields)
    entry = {"passes": list(passes), "gains": _gains(model, package, passes, rows, competition)}
    if not isinstance(settings, NetworkSettings):
        return entry
    from pipeline.models.backbones.tokenizer import load_tokenizer  # transformers is slow to load

    base = package.base(settings.backbone, member["precision"])
    config = read_json(base / "config.json")
    texts = pl.concat([rows[field].explode() for field in competition.kind.fields]).drop_nulls().to_list()
    tokens = sum(map(len, load_tokenizer(base)(texts, add_special_tokens=False)["input_ids"])) if texts else 1
    characters = float(np.sum(list(field_characters(rows, competition.kind.fields).values())))
    return entry | {
        "work": {
            "parameters": layer_parameters(config),
            "layers": config["num_hidden_layers"],
            "hidden": config["hidden_size"],
            "bytes": sum(file.stat().st_size for folder in {model, base} for file in folder.rglob("*.safetensors")),
            "siamese": settings.input == "siamese",
            "questions": question_count(competition) if settings.head == "tokens" else 1,
            "max_tokens": settings.max_tokens,
            "long_tokens": settings.inference.long_tokens,
            "characters_per_token": round(max(characters, 1.0) / max(tokens, 1), 4),
        }
    }


def _gains(
    model: Path, package: Artifacts, passes: tuple[str, ...], rows: pl.DataFrame, competition: Competition
) -> dict[str, float]:
    """Returns pass -> mean divergence of the answer with it from the answer without."""
    if passes == (FIRST,):
        return {}
    with closing(open_member(model, package, competition)) as member:
        parts = {which: member.predict(rows, which) for which in passes}
    gains, known = {}, {FIRST: parts[FIRST]}
    for which in passes[1:]:
        more = known | {which: parts[which]}
        gains[which] = round(float(competition.family.divergence(combined(more), combined(known)).mean()), 6)
        known = more
    return gains
