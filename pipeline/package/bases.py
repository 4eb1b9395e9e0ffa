"""The backbones in a package: once each, quantised as the members on them want it, whatever the number of folds."""

from __future__ import annotations

import shutil
from typing import Any

from pipeline.artifacts import FACTS, PRETRAINING, Artifacts
from pipeline.kinds import Kind
from pipeline.models.backbones.loading import load_backbone

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
NOT_NEEDED = (FACTS, PRETRAINING, "spm.model")
"""spm.model: every tokenizer has been saved as tokenizer.json."""


def pack_backbone(artifacts: Artifacts, name: str, kind: Kind, precision: str, package: Artifacts) -> None:
    """Puts into `package` what fold models of `kind` need of the backbone `name`.

    Fold models of most kinds bring all weights themselves, so that config and tokenizer are enough. Where they share
    their base, it goes in as well, saved in the precision that they were trained on, in a folder of its own.
    """
    source, facts = artifacts.base(name), package.pretrained(name)
    if not (facts / FACTS).is_file():
        facts.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / FACTS, facts / FACTS)
    target = package.quantised(name, precision) if kind.shared_base else facts
    if (target / "config.json").is_file():
        return  # another member has brought it
    target.mkdir(parents=True, exist_ok=True)
    weights = {file for pattern in WEIGHT_FILES for file in source.glob(pattern)}
    for file in sorted(set(source.iterdir()) - weights):
        if file.is_file() and file.name not in NOT_NEEDED:
            shutil.copyfile(file, target / file.name)
    if kind.shared_base:
        base: Any = load_backbone(source, precision, "cpu")
        base.save_pretrained(target, max_shard_size="5GB")
