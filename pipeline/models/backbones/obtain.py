"""Backbones: a pretrained network and its tokenizer as one checked folder in Hugging Face layout.

python -m stages.backbone --backbone NAME
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.artifacts import FACTS
from pipeline.errors import PodiumError
from pipeline.files import read_json, sha256_file, write_json
from pipeline.models.backbones.tokenizer import (
    LOCAL,
    find_vocabulary,
    finish_decoder_tokenizer,
    load_tokenizer,
    save_encoder_tokenizer,
)
from pipeline.settings.backbones import Backbone, Folder, Hub, NoBackbone, Scratch

# transformers and torch take seconds to import, and this stage runs for everybody: each is imported where it is used.

ENCODER, DECODER = "encoder", "decoder"
AFTER_PADDING = (
    *("camembert", "data2vec-text", "ibert", "longformer", "mpnet"),
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Architectures whose first position has the number after that of the padding token: so many rows of their table of
positions no text can use."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def obtain(name: str, settings: Backbone, texts: Callable[[], list[str]], folder: Path) -> None:
    """Fills the empty `folder` with backbone `name`, by its `settings`.

    An encoder's tokenizer gets MARKERS, and its base weights become fp32 safetensors; a decoder's files stay as they
    are, beside a pad token. backbone.json says what the folder holds: family, source, repository, revision,
    architecture, hidden, layers, positions (null: no limit), parameters, sha256 over all other files. `texts` is asked
    by `scratch` alone.

    Raises: PodiumError in one line for a source that cannot be had, or that lacks config, weights or tokenizer.
    """
    if isinstance(settings, NoBackbone):
        write_json(folder / FACTS, {"family": "none", "sha256": ""})
        return
    _quiet()
    source = folder / "source"
    source.mkdir()
    where = _bring(name, settings, texts, source)
    try:
        complete(source)
        load_tokenizer(source)
        _check_pickles(source)
        kind = family(source)
        numbers = _finish_encoder(source, folder) if kind == ENCODER else _finish_decoder(source, folder)
    except PodiumError as error:
        # The user knows where the files came from, not the folder that they pass through.
        raise PodiumError(f"backbones.{name}: {where}" + str(error).removeprefix(str(source))) from None
    shutil.rmtree(source)
    origin = {key: getattr(settings, key, None) for key in ("source", "repository", "revision")}
    write_json(folder / FACTS, {"family": kind} | origin | numbers | {"sha256": contents_hash(folder)})


def contents_hash(folder: Path) -> str:
    """Returns the hex SHA-256 over the names and bytes of a backbone's files, but for the facts about it."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FACTS):
        digest.update(f"{file.relative_to(folder).as_posix()} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def family(folder: Path) -> str:
    """Returns ENCODER where transformers has a masked-LM class for config.json's network, DECODER where a causal one.

    Raises: PodiumError where it has neither, or does not know the network.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    architecture = config_of(folder).get("model_type")
    if architecture in MASKED:
        return ENCODER
    if architecture in CAUSAL:
        return DECODER
    raise PodiumError(
        f'{folder}: config.json: model_type: expected a masked or causal language model, found "{architecture}"'
    )


def config_of(folder: Path) -> dict[str, Any]:
    """Returns the contents of config.json. Raises: PodiumError where there is none, or it is no JSON object."""
    file = folder / "config.json"
    try:
        found = read_json(file)
    except FileNotFoundError:
        raise PodiumError(f"{folder}: no config.json") from None
    except ValueError as error:
        raise PodiumError(f"{folder}: config.json: expected JSON, found: {error}") from None
    if not isinstance(found, dict):
        raise PodiumError(f"{folder}: config.json: expected a JSON object, found {type(found).__name__}")
    return found


def _quiet() -> None:
    """Silences bars for work of milliseconds and tables of tensors that a base network leaves out."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _bring(name: str, settings: Hub | Folder | Scratch, texts: Callable[[], list[str]], source: Path) -> str:
    """Puts the files where they are wanted; returns what to call their origin in an error."""
    if isinstance(settings, Scratch):
        from pipeline.models.backbones.scratch import build_scratch

        build_scratch(settings, texts(), source)
        return settings.architecture
    from pipeline.models.backbones.hub import copy_folder, fetch

    if isinstance(settings, Hub):
        fetch(name, settings.repository, settings.revision, source)
        return settings.repository
    copy_folder(name, Path(settings.path), source)
    return settings.path


def complete(folder: Path) -> None:
    """Raises PodiumError where a backbone's folder lacks config, weights or tokenizer; none of them is loaded."""
    if not folder.is_dir():
        raise PodiumError(f"{folder}: no such folder")
    config_of(folder)
    if not any((folder / name).exists() for name in WEIGHTS):
        raise PodiumError(f"{folder}: no weights: expected one of {', '.join(WEIGHTS)}")
    for index in folder.glob("*.index.json"):
        for part in sorted(set(read_json(index)["weight_map"].values())):
            if not (folder / part).exists():
                raise PodiumError(f"{folder}: no weights: {index.name} names {part}, which is not there")
    find_vocabulary(folder)


def _check_pickles(source: Path) -> None:
    """Raises PodiumError for weights in a pickle with anything but tensors in it, which could run any code."""
    files = sorted(source.glob("*.bin"))
    if not files:
        return
    import torch

    for file in files:
        try:
            torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:  # whatever a broken pickle comes to
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise PodiumError(
                f"{source}: its weights do not load: {file.name}: expected tensors alone, since a pickle may run any "
                f"code, found: {why}; where you trust it, save them with safetensors.torch.save_file"
            ) from None


def _finish_encoder(source: Path, folder: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    tokenizer = save_encoder_tokenizer(source, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for rows of added tokens, and a pooler that a checkpoint may lack
        try:
            network, report = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **LOCAL)
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
            raise PodiumError(f"{source}: its weights do not load: {' '.join(str(error).split())[:200]}") from None
        # A pooler on top belongs to a task; ours stands in its place.
        lacking = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
        if lacking:
            raise PodiumError(f"{source}: its weights lack {len(lacking)} tensors of the network, first {lacking[0]}")
        # deberta-v3 has spare rows: 128100 for 128001 pieces.
        if len(tokenizer) > network.get_input_embeddings().num_embeddings:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.save_pretrained(folder)
    return _shape(network.config, network, tokenizer)


def _finish_decoder(source: Path, folder: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    from pipeline.models.backbones.loading import reading

    tokenizer, names = finish_decoder_tokenizer(source), set[str]()
    for file in sorted(source.glob("*.safetensors")):
        try:
            names.update(safe_open(file, framework="pt").keys())  # reads the header alone
        except SafetensorError as error:
            raise PodiumError(f"{source}: its weights do not load: {file.name}: {error}") from None
    config = AutoConfig.from_pretrained(source, **LOCAL)
    with torch.device("meta"):  # counts parameters without the memory for them
        network = AutoModelForCausalLM.from_config(config.get_text_config(), trust_remote_code=False)
    for pattern, begin in reading(source, begin="model.").get("key_mapping", {}).items():
        found = {re.sub(pattern, begin, name) for name in names}
        lacking = sorted(key for key in network.state_dict() if key.startswith(begin) and key not in found)
        if names and lacking:  # else transformers would draw them at random
            raise PodiumError(
                f"{source}: its weights lack {len(lacking)} tensors of the part that reads text, first {lacking[0]}"
            )
    rows = network.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise PodiumError(f"{source}: its tokenizer has {len(tokenizer)} tokens, its network knows {rows} only")
    for file in source.iterdir():
        os.replace(file, folder / file.name)
    return _shape(config, network, None)


def _shape(config: Any, network: Any, tokenizer: Any) -> dict[str, Any]:
    inner = config.get_text_config()
    return {
        "architecture": config.model_type,
        "hidden": inner.hidden_size,
        "layers": inner.num_hidden_layers,
        "positions": positions(inner, tokenizer),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def positions(config: Any, tokenizer: Any = None) -> int | None:
    """Returns the longest sequence, special tokens included; None where far distances share the last entries.

    config: one of transformers, or what its config.json says, as attributes.
    """
    if getattr(config, "relative_attention", False) and not getattr(config, "position_biased_input", True):
        return None
    known: int | None = getattr(config, "max_position_embeddings", None)
    if known is None:
        return None
    if config.model_type in AFTER_PADDING:
        known -= getattr(config, "pad_token_id", 1) + 1
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in ("longrope", "su"):
        # Beyond it all rows of a batch are read in another way: an answer would depend on the rows beside it.
        known = min(known, getattr(config, "original_max_position_embeddings", None) or known)
    return known if tokenizer is None else min(known, tokenizer.model_max_length)
