"""The backbones in a package: once each, quantised as the members on them want it, whatever the number of folds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.artifacts import FACTS, Artifacts
from pipeline.models.backbones.loading import load_backbone

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
NOT_NEEDED = ("pretraining.json", "spm.model")
"""spm.model: every tokenizer has been saved as tokenizer.json."""


def pack_backbone(artifacts: Path, name: str, kind: str, precision: str, package: Path) -> None:
    """Puts into `package` what fold models of `kind` need of backbone `name`.

    An encoder's fold models bring all weights themselves, so that it needs config and tokenizer alone. A decoder's
    bring adapters: the base goes in as well, saved in the precision that they were trained on, in a folder
    of its own, pretrained/<name>-<precision>/.
    """
    source = Artifacts(artifacts).base(name)
    facts = package / "pretrained" / name
    if not (facts / FACTS).is_file():
        facts.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / FACTS, facts / FACTS)
    target = facts if kind == "encoder" else package / "pretrained" / f"{name}-{precision}"
    if (target / "config.json").is_file():
        return  # another member has brought it
    target.mkdir(parents=True, exist_ok=True)
    weights = {file for pattern in WEIGHTS for file in source.glob(pattern)}
    for file in sorted(set(source.iterdir()) - weights):
        if file.is_file() and file.name not in (FACTS, *NOT_NEEDED):
            shutil.copyfile(file, target / file.name)
    if kind == "decoder":
        base: Any = load_backbone(source, precision, "cpu")
        base.save_pretrained(target, max_shard_size="5GB")
