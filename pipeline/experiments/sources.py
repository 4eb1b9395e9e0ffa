"""What each source of rows from elsewhere brings to a member: its fold models against the same ones without the source.

make sources MEMBER=siamese                # every fold that it trains
make sources MEMBER=siamese FOLD=0         # cheaper, and a wider interval

The rows of a fold are the same both times, so the losses are compared row by row, and the interval is that of their
mean difference over other rows. It does not hold what another seed would change. A member that is built already is not
trained again with all its sources. Each training's losses are kept, so a run that was stopped goes on with the next.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.artifacts import Artifacts
from pipeline.config import Params
from pipeline.data.folds import group_keys
from pipeline.data.lessons import learned_hash
from pipeline.data.split import Split, split_rows
from pipeline.ensemble.uncertainty import Interval, bootstrap
from pipeline.errors import PodiumError
from pipeline.experiments.tries import check_member, started
from pipeline.files import read_json, sha256_file, write_parquet
from pipeline.members.beside.lessons import RECEIPT
from pipeline.members.context import Start
from pipeline.members.fold import quick_look
from pipeline.report.sources import ALL

KEPT = Path("work/sources")


@dataclass(frozen=True)
class Measured:
    """What was found for one member."""

    start: str
    """Hash of the start file that its fold models have."""
    folds: tuple[int, ...]
    rows: int
    gains: dict[str, Interval]
    """Source -> by how many nats the mean loss is lower with it than without; ALL where there are several."""


def folds_of(name: str, params: Params, asked: int | None) -> list[int]:
    """Returns the folds on which the sources are measured.

    Raises: PodiumError for an unknown member, one that learns no rows from elsewhere, or a fold that it does not train.
    """
    check_member(name, params)
    settings = params.members[name]
    if not settings.extra:
        raise PodiumError(f"MEMBER: {name} learns no rows from elsewhere: its `extra` names no source")
    trained = [fold for fold in params.folds.ids if settings.trains(fold)]
    if asked is not None and asked not in trained:
        raise PodiumError(f"FOLD: expected one of {', '.join(map(str, trained))}, found {asked}")
    return trained if asked is None else [asked]


def measure(name: str, folds: list[int], params: Params, artifacts: Artifacts) -> Measured:
    """Returns what each source of a member brings on the rows of `folds`; says what it trains.

    Raises: what training raises.
    """
    sources = params.members[name].extra
    left_out = [(), *((each,) for each in sources), *([tuple(sources)] if len(sources) > 1 else [])]
    losses: dict[tuple[str, ...], list[np.ndarray]] = {each: [] for each in left_out}
    groups = list[pl.Series]()
    start, made_by = started(name, params, artifacts)
    for fold in folds:
        split = split_rows(artifacts.train().collect(), artifacts.folds(), fold)
        groups.append(group_keys(split.fold, start.competition.kind))
        training = Ablation(split, start, made_by, fold, artifacts)
        for without in left_out:
            losses[without].append(training.losses(without))
    joined = {without: np.concatenate(each) for without, each in losses.items()}
    codes = pl.concat(groups).rank("dense").to_numpy().astype(np.int64) - 1
    if codes.max() < 1:
        raise PodiumError("FOLD: expected two groups of rows or more, found one: no interval can be told")
    table = np.stack([joined[without] - joined[()] for without in left_out[1:]], axis=1)
    names = [without[0] if len(without) == 1 else ALL for without in left_out[1:]]
    gains = dict(zip(names, bootstrap(table, codes, seed=0), strict=True))
    return Measured(made_by, tuple(folds), len(codes), gains)


@dataclass(frozen=True)
class Ablation:
    """A fold model that is trained with and without sources."""

    split: Split
    start: Start
    made_by: str
    """Hash of its start file."""
    fold: int
    artifacts: Artifacts

    def losses(self, without: tuple[str, ...]) -> np.ndarray:
        """Returns its losses (rows of the fold,) without some sources, from an earlier run where there is one.

        Raises: PodiumError where it learns nothing.
        """
        file = KEPT / self.start.member / f"{self.key(without)}.parquet"
        told = f"{self.start.member} fold {self.fold} " + (f"without {', '.join(without)}" if without else "with all")
        found = None if without else self.built()
        if found is None and file.is_file():
            found = pl.read_parquet(file)["loss"].to_numpy()
        elif found is None:
            print(f"{told}: trains", flush=True)
            look = quick_look(self.split, self.start, self.fold, None, self.artifacts, without)
            if look.training and look.training["failed"]:
                raise PodiumError(f"{told}: {look.training['failed']}: it learns nothing, so no gain can be told")
            found = look.losses
            write_parquet(pl.DataFrame({"loss": found}), file)
        print(f"{told}: {found.mean():.4f}", flush=True)
        return found

    def built(self) -> np.ndarray | None:
        """Returns the losses of the fold model that the build has made in the same way; None where it has made none."""
        name, competition = self.start.member, self.start.competition
        file, part = self.artifacts.receipt(name, self.fold), self.artifacts.oof_part(name, self.fold)
        if not file.is_file() or not part.is_file():
            return None
        receipt, said = read_json(file), pl.read_parquet(part)
        expected = self.made_from() | {"rows": learned_hash(self.split.train), "start": self.made_by}
        if not expected.items() <= receipt.items() or not said["id"].equals(self.split.fold["id"]):
            return None
        labels = self.split.fold["label"].to_numpy()
        return competition.family.losses(labels, said.select(competition.outputs).to_numpy())

    def made_from(self) -> dict[str, str]:
        """Returns the hashes of the files that every fold model comes from."""
        return {"data": sha256_file(self.artifacts.train_file), "folds": sha256_file(self.artifacts.folds_file)}

    def key(self, without: tuple[str, ...]) -> str:
        """Returns a hash of everything that decides the training."""
        lessons = self.artifacts.lessons(self.start.member, self.fold).glob(f"*/{RECEIPT}")
        told = [sha256_file(file) for file in sorted(lessons)]
        facts = [self.made_by, self.made_from(), self.fold, without, told]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
