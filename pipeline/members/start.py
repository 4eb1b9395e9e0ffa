"""Everything that decides a member's training, resolved into one small file: artifacts/start/<member>.json.

Its fold models depend on this file and the data alone, so that a changed setting or line of code retrains exactly the
members that it touches, and a comment retrains nothing.

python -m stages.start --members
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from pipeline.artifacts import FACTS, Artifacts
from pipeline.competitions.registry import load_competition
from pipeline.competitions.task import Competition
from pipeline.config import Params
from pipeline.data.text import PROMPT, layouts, views_of
from pipeline.errors import PodiumError, nearest
from pipeline.files import read_json, sha256_file
from pipeline.imports import fingerprint, libraries
from pipeline.kinds import KINDS
from pipeline.members.beside.auxiliary import source_of
from pipeline.settings.auxiliary import Auxiliary
from pipeline.settings.backbones import NoBackbone
from pipeline.settings.encoder import BUILD, Encoder
from pipeline.settings.extra import ExtraRows
from pipeline.settings.finetuning import NetworkSettings

SHARED = (
    "stages/finetune.py",
    "pipeline/members/fold.py",
    "pipeline/members/beside/auxiliary.py",
    "pipeline/data/lessons.py",
    "pipeline/inference/predict.py",
)
"""What every kind's fold goes through, counted without the kinds that it calls."""
TAUGHT, BESIDE = ("pipeline/members/beside/lessons.py",), ("pipeline/members/beside/learned.py",)
"""What a student's fold goes through beside it, and that of a member with rows from elsewhere."""
UNCOUNTED = ("pipeline/kinds.py", "pipeline/artifacts.py")
"""What decides of a member's own kind stands in its start file; another kind, and where files lie, change nothing."""
DECIDES = ("trainer", "opener", "network", "shared_base", "knows_every_row")
"""Of a kind's row; what it costs and brings along changes no training."""
PRETRAINING = "pipeline.training.pretrain"


def resolve(name: str, params: Params, competition: Competition, artifacts: Artifacts) -> dict[str, Any]:
    """Returns the contents of start/<name>.json: a pipeline.members.context.Start, ready for JSON.

    The precision of a network's training is what `auto` comes to here.

    Raises: PodiumError for an unknown member, a file under external/ that is missing, a member that does not fit its
    backbone, or the first fault of an auxiliary task's files.
    """
    if name not in params.members:
        raise PodiumError(f'params.yaml: members: no member "{name}"{nearest(name, params.members)}')
    settings, network, learned = params.members[name], {}, competition.as_learned()
    kind, taught = KINDS[settings.kind], name in params.students
    module = kind.trainer.split(":")[0]
    files = {key: _content(Path(file), f"members.{name}.{key}") for key, file in settings.files().items()}
    if isinstance(settings, NetworkSettings):
        about = artifacts.backbone_facts(settings.backbone)
        check_network(name, settings, competition, about)
        network = {"backbone": str(about["sha256"]), "max_attempts": params.guard.max_attempts}
        network["auxiliary"] = _auxiliary(name, settings.auxiliary)
        settings = _with_precision(name, settings)
        if settings.head == "tokens":
            learned = replace(learned, prompt=competition.prompt)
            _check_prompt(name, settings, competition, artifacts)
    return {
        "member": name,
        "settings": asdict(settings),
        "competition": asdict(learned),
        "threads": params.threads,
        "code": fingerprint(
            module, alone=(*SHARED, *(TAUGHT if taught else ()), *(BESIDE if settings.extra else ())), without=UNCOUNTED
        ),
        "kind": {key: getattr(kind, key) for key in DECIDES},
        "libraries": {library: _version(library) for library in libraries(module)},
        "files": files,
        "extra": {each: _from_elsewhere(params.extra[each], artifacts.extra(each)) for each in settings.extra},
    } | network


def _from_elsewhere(source: ExtraRows, file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise PodiumError(f"{file}: no such file; run `dvc repro extra`")
    told = {"labels": source.labels, "weight": source.weight, "confidence": source.confidence}
    return told | {"data": sha256_file(file)}


def _auxiliary(name: str, settings: Auxiliary | None) -> dict[str, Any]:
    """Returns what the rows of each auxiliary task are; all of its training file is read and checked."""
    found = {}
    for task, each in settings.learned.items() if settings else ():
        key = f"members.{name}.auxiliary.tasks.{task}.competition"
        found[task] = asdict(source_of(each.path, load_competition(each.competition, key)))
    return found


def _with_precision(name: str, settings: NetworkSettings) -> NetworkSettings:
    """Returns the settings with the precision in which the network trains on this machine."""
    from pipeline.training.devices.device import resolve_precision  # torch is slow to load

    training = settings.training
    if training.smart and training.smart.form == "smart" and training.precision == "auto":
        training, reason = replace(training, precision="fp32"), "smart moves words by less than half precision can tell"
    else:
        precision, reason = resolve_precision(training.precision)
        training = replace(training, precision=precision)
    print(f"{name}: trains in {training.precision}: {reason}")
    return replace(settings, training=training)


def resolve_pretraining(name: str, params: Params, artifacts: Artifacts) -> dict[str, Any]:
    """Returns the contents of start_pretrain/<name>.json: a pipeline.training.pretrain.PretrainStart, for JSON.

    Raises: PodiumError for an unknown backbone, longer sequences than it can read, or a file of more text that is
    missing.
    """
    if name not in params.backbones:
        raise PodiumError(f'params.yaml: backbones: no backbone "{name}"{nearest(name, params.backbones)}')
    backbone = params.backbones[name]
    if isinstance(backbone, NoBackbone):
        return {"label": f"pretrain {name}", "settings": None}
    settings, facts = backbone.pretrain, read_json(artifacts.backbone(name) / FACTS)
    if settings.epochs and settings.max_tokens > (limit := facts["positions"] or settings.max_tokens):
        raise PodiumError(
            f"params.yaml: backbones.{name}.pretrain.max_tokens: "
            f"{settings.max_tokens} is more than its {limit} positions"
        )
    return {
        "label": f"pretrain {name}",
        "settings": asdict(settings),
        "threads": params.threads,
        "backbone": facts["sha256"],
        "files": [_content(Path(file), f"backbones.{name}.pretrain.files") for file in settings.files],
        "code": fingerprint(PRETRAINING, without=UNCOUNTED),
        "libraries": {library: _version(library) for library in libraries(PRETRAINING)},
    }


def _check_prompt(name: str, settings: NetworkSettings, competition: Competition, artifacts: Artifacts) -> None:
    """Raises PodiumError where the backbone's tokenizer has no answers, or the prompt leaves no room for texts."""
    from pipeline.models.backbones.tokenizer import load_tokenizer  # transformers is slow to load

    tokenizer = load_tokenizer(artifacts.base(settings.backbone))
    try:
        for view in views_of(competition.kind, siamese=False):
            for form in layouts(tokenizer, PROMPT, competition, view):
                form.check_room(settings.max_tokens)
    except PodiumError as error:
        raise PodiumError(f"params.yaml: members.{name}: {error}") from None


def check_network(name: str, member: NetworkSettings, competition: Competition, about: Mapping[str, Any]) -> None:
    """Raises PodiumError where a network's settings do not fit its competition, the user's own code, or its backbone.

    about: what is known of the backbone; see Artifacts.backbone_facts.
    """
    where = f"params.yaml: {'students' if member.teachers else 'members'}.{name}"
    if member.inference.swap and competition.kind.mirror is None:
        raise PodiumError(f"{where}.inference.swap: needs two sides that may change places")
    if member.head == "tokens" and competition.outcome == "numbers":
        raise PodiumError(f"{where}.head: numbers have no tokens to answer with, found head tokens; use plain")
    if member.training.dsgd and competition.outcome == "numbers":
        raise PodiumError(f"{where}.training.dsgd: a number is never simply right: leave it out")
    if isinstance(member, Encoder) and member.network:
        _check_code(member.network)
    if not about:
        return
    if about["family"] != member.kind:
        raise PodiumError(
            f"{where}: kind {member.kind} needs an {member.kind} as backbone; "
            f"{member.backbone} is an {about['family']} ({about['architecture']})"
        )
    limit = about["positions"]
    for key, tokens in {"max_tokens": member.max_tokens, "inference.long_tokens": member.inference.long_tokens}.items():
        if limit is not None and tokens is not None and tokens > limit:
            raise PodiumError(
                f"{where}.{key}: {tokens} is more than the {limit} positions of backbone {member.backbone}"
            )
    if about["layers"] is not None and (fresh := member.training.reinit_layers) > about["layers"]:
        raise PodiumError(
            f"{where}.training.reinit_layers: {fresh} is more than the {about['layers']} layers of "
            f"backbone {member.backbone}"
        )


def _check_code(file: str) -> None:
    """Raises PodiumError where a custom network's file is no Python, or does not define what it must; runs nothing."""
    try:
        names = compile(Path(file).read_bytes(), file, "exec").co_names
    except (SyntaxError, ValueError) as error:
        raise PodiumError(f"{file}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if BUILD not in names:
        raise PodiumError(f"{file}: expected a function {BUILD}(backbone, task, classes), found none")


def _content(file: Path, key: str) -> str:
    if not file.is_file():
        raise PodiumError(f"{file}: no such file; {key} in params.yaml names it")
    return sha256_file(file)


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Returns import name -> distributions; looked up once, for it opens the records of all that is installed."""
    return packages_distributions()


def _version(library: str) -> str:
    """Returns the installed version of the distribution that provides the import name `library`."""
    try:
        return version(_distributions().get(library, [library])[0])
    except PackageNotFoundError:
        raise PodiumError(f"{library} is imported by Podium but not installed; run `make setup`") from None
