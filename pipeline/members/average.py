"""The fold models of a network member averaged into one, which answers in one pass in place of K.

An average of weights is sound where all runs begin alike (Wortsman et al. 2022, arXiv 2203.05482): fold models here
have the same fresh weights but for the last biases, which `prior_start` sets by the fold's own rows. A and B of an
adapter are averaged each by itself, as LMSYS's winner did, so that their product is not the average of the products.

It has learned every row but the holdout, which alone can tell its loss: out-of-fold there is nothing to measure.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.artifacts import MEMBER, Artifacts
from pipeline.errors import PodiumError
from pipeline.files import read_json, write_json
from pipeline.inference.predict import predict_member
from pipeline.models.candidates import Candidates
from pipeline.models.network import checksum
from pipeline.models.saved import read_member
from pipeline.models.saved_network import HEAD
from pipeline.settings.finetuning import NetworkSettings
from pipeline.settings.member import MemberSettings
from pipeline.training.techniques.averaging import add

LEAST = 2
"""Fold models that can be averaged."""


def averageable(name: str, settings: MemberSettings, folds: Iterable[int], artifacts: Artifacts) -> dict[int, Path]:
    """Returns fold -> folder of the fold models that a member has; `folds` are those of the run.

    Raises: PodiumError where its kind has no weights to average, a fold model is missing, one of them came to nothing,
    or they did not begin alike.
    """
    if not isinstance(settings, NetworkSettings):
        raise PodiumError(
            f"MEMBER: {name} is {settings.kind} and has no weights to average; name an encoder or a decoder"
        )
    if settings.training.deni and settings.training.deni.answer == "vote":
        raise PodiumError(f"MEMBER: {name} answers by DENI's voters, which are no single network: use answer: main")
    folds = [fold for fold in folds if settings.trains(fold)]
    if len(folds) < LEAST:
        raise PodiumError(f"MEMBER: {name} has one fold model: expected {LEAST} or more to average")
    heads = {}
    for fold in folds:
        file = artifacts.receipt(name, fold)
        if not file.is_file() or not (artifacts.model(name, fold) / MEMBER).is_file():
            raise PodiumError(f"{file}: expected fold model {fold} of {name}, found none; run `dvc repro`")
        record = read_json(file)["training"]
        if record["collapsed"]:
            raise PodiumError(f"{file}: fold model {fold} of {name} collapsed: it would spoil the average")
        heads[fold] = record["attempts"][-1]["head"]
    if len(set(heads.values())) > 1:
        told = ", ".join(f"fold {fold} from {head}" for fold, head in heads.items())
        raise PodiumError(
            f"MEMBER: the fold models of {name} began with other fresh weights, for the guard restarted some (seeds: "
            f"{told}): they cannot be averaged; lower training.schedule.rate"
        )
    return {fold: artifacts.model(name, fold) for fold in folds}


def answers_of_average(
    folders: Sequence[Path], asked: pl.DataFrame, learned: pl.DataFrame, artifacts: Artifacts, target: Path
) -> np.ndarray:
    """Writes `target`, the average of the fold models in `folders`; returns what it says of `asked`, (rows, outputs).

    `learned`: the rows that any of them has seen, by which candidates are known.
    """
    competition = artifacts.competition()
    average_models(folders, target)
    if competition.candidates:
        Candidates.of(learned, competition).save(target)
    return predict_member(target, artifacts, asked, competition, artifacts.tokens)


def average_models(folders: Sequence[Path], target: Path) -> None:
    """Writes `target`, the model with the mean of the weights of the fold models in `folders`, tensor by tensor.

    Raises: PodiumError where their files do not hold the same tensors.
    """
    first = folders[0]
    shutil.copytree(first, target)
    for file in sorted(first.rglob("*.safetensors")):
        mean: dict[str, Tensor] = {}
        for count, folder in enumerate(folders, start=1):
            other = folder / file.relative_to(first)
            tensors = _tensors(other)
            if mean and {name: each.shape for name, each in tensors.items()} != {n: e.shape for n, e in mean.items()}:
                raise PodiumError(f"{other}: expected the tensors of {file}, found others")
            mean = add({name: each.float() for name, each in tensors.items()}, mean, count)
        with safe_open(file, "pt") as stream:
            about = stream.metadata()
        mean = {name: mean[name].to(each.dtype).contiguous() for name, each in _tensors(file).items()}
        (target / file.relative_to(first)).unlink()  # it may be a link into DVC's cache
        save_file(mean, target / file.relative_to(first), about)
        if file.name == HEAD:
            saved = read_json(first / MEMBER)
            saved["facts"]["head"] = checksum(mean)
            (target / MEMBER).unlink()
            write_json(target / MEMBER, saved)
    read_member(target)


def _tensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
