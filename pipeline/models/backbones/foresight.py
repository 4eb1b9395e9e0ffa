"""What can be known of a backbone before `dvc repro` brings or builds it: from its settings, or its config.json alone.

python -m pipeline.check
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.artifacts import FACTS, Artifacts
from pipeline.errors import PodiumError
from pipeline.files import read_json
from pipeline.models.backbones.deberta_v3 import DEBERTA_V3
from pipeline.models.backbones.obtain import complete, config_of, family, positions
from pipeline.settings.backbones import Backbone, Folder, Hub, NoBackbone, Scratch


def foreseen(name: str, settings: Backbone, artifacts: Artifacts) -> dict[str, Any]:
    """Returns what backbone.json will say of a backbone; empty for none, and for one of the hub that is not here yet.

    `parameters` is an estimate where the network is not here yet.

    Raises: PodiumError for a folder that holds no backbone.
    """
    if isinstance(settings, NoBackbone):
        return {}
    if isinstance(settings, Scratch):
        return _of_config(_scratch_config(settings), "encoder" if settings.architecture == "deberta-v3" else "decoder")
    if isinstance(settings, Folder):
        try:
            complete(Path(settings.path))
            return _of_config(config_of(Path(settings.path)), family(Path(settings.path)))
        except PodiumError as error:
            raise PodiumError(f"backbones.{name}.path: {error}") from None
    made = artifacts.backbone(name) / FACTS
    if made.is_file():
        facts: dict[str, Any] = read_json(made)
        if (facts.get("repository"), facts.get("revision")) == (settings.repository, settings.revision):
            return facts
    folder = _cached(settings)
    return _of_config(config_of(folder), family(folder)) if folder else {}


def layer_parameters(config: dict[str, Any]) -> int:
    """Returns the number of weights that every token is multiplied with: all but the embeddings."""
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    keys = config.get("num_key_value_heads") or heads
    gates = 3 if config.get("hidden_act", "").startswith(("silu", "gelu_pytorch")) else 2
    attention = 2 * hidden * hidden + 2 * hidden * hidden * keys // heads
    return int(config["num_hidden_layers"] * (attention + gates * hidden * middle))


def _cached(settings: Hub) -> Path | None:
    """Returns the folder with the config.json of this commit in the user's Hugging Face cache, if there is one."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(settings.repository, "config.json", revision=settings.revision)
    return Path(file).parent if isinstance(file, str) else None


def _scratch_config(settings: Scratch) -> dict[str, Any]:
    return (DEBERTA_V3 if settings.architecture == "deberta-v3" else {"model_type": "llama", "hidden_act": "silu"}) | {
        "vocab_size": settings.vocabulary,
        "hidden_size": settings.hidden,
        "intermediate_size": 4 * settings.hidden,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": settings.positions,
    }


def _of_config(config: dict[str, Any], kind: str) -> dict[str, Any]:
    inner = config.get("text_config") or config  # a network that also sees pictures keeps its words' part there
    try:
        return {
            "family": kind,
            "architecture": config["model_type"],
            "hidden": inner["hidden_size"],
            "layers": inner["num_hidden_layers"],
            "positions": positions(SimpleNamespace(**inner)),
            "parameters": layer_parameters(inner) + inner["vocab_size"] * inner["hidden_size"],
        }
    except (KeyError, TypeError):  # other names of the same things: transformers will know
        return {"family": kind, "architecture": config.get("model_type"), "layers": None, "positions": None}
