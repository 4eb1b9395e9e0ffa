"""Everything that decides a member's training, resolved into one small file: artifacts/start/<member>.json.

Its fold models depend on this file and the data alone, so that a changed setting or line of code retrains exactly the
members that it touches, and a comment retrains nothing.

python -m stages.start --member words
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from pipeline.competitions.task import Competition
from pipeline.config import Decoder, Encoder, External, Params
from pipeline.errors import PodiumError, nearest
from pipeline.files import read_json, sha256_file
from pipeline.imports import fingerprint, libraries
from pipeline.models.backbones.pretrained import FACTS, backbone_facts
from pipeline.settings.backbones import NoBackbone

SHARED = ("stages/finetune.py", "pipeline/members/fold.py", "pipeline/inference/predict.py")
"""What every kind's fold goes through, counted without the kinds that it calls."""


def resolve(name: str, params: Params, competition: Competition, artifacts: Path = Path("artifacts")) -> dict[str, Any]:
    """The contents of start/<name>.json: settings with defaults, competition, threads, code and library versions.

    A neural member's holds its backbone's content hash as well, and the precision that `auto` comes to here.

    Raises: PodiumError for an unknown member, a file under external/ that is missing, or a member that does not fit
    its backbone.
    """
    if name not in params.members:
        raise PodiumError(f'params.yaml: members: no member "{name}"{nearest(name, params.members)}')
    member = params.members[name]
    module = f"pipeline.members.{member.kind}"
    resolved: dict[str, Any] = {
        "member": name,
        "settings": member.model_dump(mode="json"),
        "competition": asdict(competition),
        "threads": params.threads,
        "code": fingerprint(module, alone=SHARED),
        "libraries": {library: _version(library) for library in libraries(module)},
    }
    if isinstance(member, External):
        resolved["file"] = _content(Path(member.file), f"members.{name}.file")
    if isinstance(member, Encoder | Decoder):
        from pipeline.training.device import resolve_precision  # torch is slow to load

        resolved["backbone"] = _backbone(name, member, artifacts)
        resolved["guard"] = {"max_attempts": params.guard.max_attempts}
        training = resolved["settings"]["training"]
        if training["smart"] and training["smart"]["form"] == "smart" and training["precision"] == "auto":
            training["precision"], reason = "fp32", "smart moves words by less than half precision can tell"
        else:
            training["precision"], reason = resolve_precision(training["precision"])
        print(f"{name}: trains in {training['precision']}: {reason}")
    if isinstance(member, Encoder) and member.network:
        resolved["network"] = _content(Path(member.network), f"members.{name}.network")
    return resolved


def resolve_pretraining(name: str, params: Params, artifacts: Path = Path("artifacts")) -> dict[str, Any]:
    """The contents of start_pretrain/<name>.json, for a backbone: the same idea. `settings` is None without a network.

    Raises: PodiumError for an unknown backbone, or a file of more text that is missing.
    """
    if name not in params.backbones:
        raise PodiumError(f'params.yaml: backbones: no backbone "{name}"{nearest(name, params.backbones)}')
    backbone = params.backbones[name]
    if isinstance(backbone, NoBackbone):
        return {"label": f"pretrain {name}", "settings": None}
    module, settings = "pipeline.training.pretrain", backbone.pretrain.model_dump(mode="json")
    return {
        "label": f"pretrain {name}",
        "settings": settings,
        "threads": params.threads,
        "backbone": read_json(artifacts / "backbones" / name / FACTS)["sha256"],
        "files": [_content(Path(file), f"backbones.{name}.pretrain.files") for file in settings["files"]],
        "code": fingerprint(module),
        "libraries": {library: _version(library) for library in libraries(module)},
    }


def _backbone(name: str, member: Encoder | Decoder, artifacts: Path) -> str:
    """The content hash of the member's backbone, after checking that the two fit together."""
    about = backbone_facts(artifacts, member.backbone)
    if about["family"] != member.kind:
        raise PodiumError(
            f"params.yaml: members.{name}: kind {member.kind} needs an {member.kind} as backbone; "
            f"{member.backbone} is an {about['family']} ({about['architecture']})"
        )
    limit = about["positions"]
    for key, tokens in {"max_tokens": member.max_tokens, "inference.long_tokens": member.inference.long_tokens}.items():
        if limit is not None and tokens is not None and tokens > limit:
            raise PodiumError(
                f"params.yaml: members.{name}.{key}: {tokens} is more than the {limit} positions of "
                f"backbone {member.backbone}"
            )
    return str(about["sha256"])


def _content(file: Path, key: str) -> str:
    if not file.is_file():
        raise PodiumError(f"{file}: no such file; {key} in params.yaml names it")
    return sha256_file(file)


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Import name -> distributions; looked up once, for it opens the records of all that is installed."""
    return packages_distributions()


def _version(library: str) -> str:
    """The installed version of the distribution that provides the import name `library`."""
    try:
        return version(_distributions().get(library, [library])[0])
    except PackageNotFoundError:
        raise PodiumError(f"{library} is imported by Podium but not installed; run `make setup`") from None
