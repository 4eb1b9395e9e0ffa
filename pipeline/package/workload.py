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
from pipeline.data.prompt import prompt_of
from pipeline.data.rows import field_characters
from pipeline.files import read_json
from pipeline.inference.passes import FIRST, LONG, combined, passes_of
from pipeline.inference.predict import open_member
from pipeline.models.backbones.foresight import layer_parameters
from pipeline.models.saved import read_member
from pipeline.planning.steps import AROUND, view_characters
from pipeline.settings.finetuning import NetworkSettings


def member_workload(
    package: Artifacts, name: str, member: dict[str, Any], parity: pl.DataFrame, competition: Competition
) -> dict[str, Any]:
    """Returns `passes`, `gains` and `work` for a member's entry in the manifest; its files lie in `package` already.

    gains: pass beyond the first -> expected gain of the member alone, on the rows of `parity`. work, for
    networks: parameters of the layers, their number and width, bytes to load, sequences and their longest length, and
    for a long pass the fewest characters in the longest sequence of a row of `parity` that is truncated.
    """
    model = package.model(name, member["folds"][0])
    settings = read_member(model).settings
    passes = passes_of(settings)
    rows = parity.select("id", *competition.kind.fields)
    answers = _answers(model, package, passes, rows, competition)
    entry = {"passes": list(passes), "gains": _gains(answers, competition)}
    if not isinstance(settings, NetworkSettings):
        return entry
    from pipeline.models.backbones.tokenizer import load_tokenizer  # transformers is slow to load

    base = package.base(settings.backbone, member["precision"])
    config = read_json(base / "config.json")
    texts = pl.concat([rows[field].explode() for field in competition.kind.fields]).drop_nulls().to_list()
    tokenizer = load_tokenizer(base)
    tokens = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 1
    questions, around = 1, AROUND
    if settings.head == "tokens":
        prompt = prompt_of(tokenizer, competition)
        questions, around = len(prompt.ends), AROUND + len(prompt.start) + max(map(len, prompt.ends))
    sizes = field_characters(rows, competition.kind.fields)
    characters = float(np.sum(list(sizes.values())))
    siamese = settings.input == "siamese"
    longest = view_characters(sizes, competition.kind, siamese).max(axis=0)
    cut = longest[np.isfinite(answers[LONG]).all(axis=1)] if LONG in answers else longest[:0]
    return entry | {
        "work": {
            "parameters": layer_parameters(config),
            "layers": config["num_hidden_layers"],
            "hidden": config["hidden_size"],
            "bytes": sum(file.stat().st_size for folder in {model, base} for file in folder.rglob("*.safetensors")),
            "siamese": siamese,
            "questions": questions,
            "around": around,
            "max_tokens": settings.max_tokens,
            "long_tokens": settings.inference.long_tokens,
            "shortest_cut": int(cut.min()) if len(cut) else None,
            "characters_per_token": round(max(characters, 1.0) / max(tokens, 1), 4),
        }
    }


def _answers(
    model: Path, package: Artifacts, passes: tuple[str, ...], rows: pl.DataFrame, competition: Competition
) -> dict[str, np.ndarray]:
    """Returns pass -> (rows, outputs) means; of a member with one pass nothing is asked."""
    if passes == (FIRST,):
        return {}
    with closing(open_member(model, package, competition)) as member:
        return {which: member.predict(rows, which) for which in passes}


def _gains(parts: dict[str, np.ndarray], competition: Competition) -> dict[str, float]:
    """Returns pass -> mean divergence of the answer with it from the answer without."""
    gains: dict[str, float] = {}
    known: dict[str, np.ndarray] = {}
    for which, part in parts.items():
        more = known | {which: part}
        if known:
            gains[which] = round(float(competition.family.divergence(combined(more), combined(known)).mean()), 6)
        known = more
    return gains
