"""What encoder and decoder members have in common: rows to sequences, the inner slice, the run, and its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor, nn

from pipeline.competitions.family import Categorical
from pipeline.competitions.task import Competition
from pipeline.data.folds import group_keys
from pipeline.data.rows import swapped
from pipeline.data.split import Split
from pipeline.data.text import Encoded
from pipeline.inference.network_member import encoded_rows
from pipeline.members.context import Run, Start
from pipeline.models.backbones.tokenizer import load_tokenizer
from pipeline.settings.finetuning import NetworkSettings
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.clock import timed
from pipeline.training.devices.device import Device, training_device
from pipeline.training.objectives.multitask import Interleaved, scored_part
from pipeline.training.objectives.supervised import Supervised
from pipeline.training.restarts import Job, train

SHOWN = 3
"""Rows that a quick look prints, cut to that many characters each."""
SHOWN_CHARACTERS = 600


@dataclass(frozen=True)
class OpenRun:
    """One fold model's surroundings, opened once."""

    label: str
    settings: NetworkSettings
    competition: Competition
    base: Path
    backbone: str
    """Content hash of the backbone."""
    tokenizer: Any
    token_cache: Path | None
    device: Device
    max_attempts: int


def open_run(split: Split, start: Start, settings: NetworkSettings, run: Run) -> OpenRun:
    """Returns the backbone, tokenizer and device that `start` names.

    A quick look prints a few rows as the network will read them.
    """
    base = run.artifacts.base(settings.backbone, settings.inference.precision)
    opened = OpenRun(
        run.label,
        settings,
        start.competition,
        base,
        run.artifacts.backbone_facts(settings.backbone)["sha256"],
        load_tokenizer(base),
        run.token_cache,
        training_device(settings.training.precision, start.threads),
        start.max_attempts,
    )
    if run.quick:
        _show(split.train, opened)
    return opened


def train_network(
    build: Callable[[], nn.Module], split: Split, run: OpenRun, checkpoint: Checkpoint
) -> tuple[nn.Module, dict[str, Any], list[dict[str, Tensor]]]:
    """Fine-tunes what `build` gives on `split.train`; returns it, what is to be told about it, and who votes with it.

    The record: `curve` and `inner` (steps done, plain loss), `best`, `soup` (steps), `skipped`, `truncation` by field,
    `attempts` (see restarts.FineTuned), `auxiliary` by task, and `failed`, the guard's reason to give up, or None.
    """
    training = run.settings.training
    learned, inner = inner_slice(split.train, training.inner, training.seeds.order, run.competition)
    objective = _with_beside(_learned(learned, run), learned, split, run)
    mixed = _interleaved(objective, split, run) if split.auxiliary else None
    judge = _objective(inner, run, False, 0.0) if len(inner) else None
    if training.inner and judge is None:
        told = f"{len(split.train)} rows are too few for training.inner {training.inner}"
        print(f"warning: {run.label}: {told}; the last weights are kept", flush=True)
    job = Job(
        build,
        mixed or objective,
        judge,
        training,
        run.max_attempts,
        run.device,
        checkpoint,
        run.label,
    )
    trained = train(job)
    record = trained.record
    about: dict[str, Any] = {
        "curve": record.curve(mixed.steps_of(None) if mixed else None),
        "inner": [(step, round(score, 6)) for step, score in record.scores],
        "best": record.best,
        "soup": record.soup,
        "skipped": record.skipped,
        "truncation": objective.encoded.truncation,
        "attempts": trained.attempts,
        "auxiliary": {
            name: {
                "rows": len(each.rows),
                "left_out": each.left_out,
                "curve": record.curve(mixed.steps_of(name) if mixed else ()),
            }
            for name, each in split.auxiliary.items()
        },
        "failed": record.stopped,
    }
    network, voters = scored_part(trained.network, trained.voters)
    deni = training.deni
    return network, about, voters if deni and deni.answer == "vote" else []


def inner_slice(
    rows: pl.DataFrame, share: float, seed: int, competition: Competition
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns `rows` without and with the slice on which the best moment is chosen: whole groups, about `share`."""
    if not share:
        return rows, rows.head(0)
    groups = group_keys(rows, competition.kind).rank("dense").to_numpy()
    order = np.random.default_rng([seed, 1]).permutation(np.unique(groups))
    sizes = np.bincount(groups)[order]
    chosen = order[np.cumsum(sizes) <= share * len(rows)]
    inside = pl.Series(np.isin(groups, chosen))
    return rows.filter(~inside), rows.filter(inside)


def _show(rows: pl.DataFrame, run: OpenRun) -> None:
    """Prints a few rows as the network will read them."""
    encoded = encoded_rows(rows.head(SHOWN), run.settings, run.tokenizer, run.competition)
    for number, ids in enumerate(encoded.ids):
        row = rows[number // encoded.views]
        label = row["label"].to_numpy()[0]
        if isinstance(run.competition.family, Categorical):
            label = run.competition.outputs[label]
        print(f"row {row['id'][0]}, label {label}, {len(ids)} tokens:")
        print(f"  ids {ids[:12].tolist()}{' ...' if len(ids) > 12 else ''}")
        print(f"  {run.tokenizer.decode(ids.tolist())[:SHOWN_CHARACTERS]!r}")


def _interleaved(scored: Supervised, split: Split, run: OpenRun) -> Interleaved:
    """Returns the scored task's rows with those of the auxiliary tasks, which are read as its own are."""
    assert run.settings.auxiliary
    tasks = {
        name: _learned(each.rows, replace(run, label=f"{run.label}, {name}", competition=each.competition))
        for name, each in split.auxiliary.items()
    }
    return Interleaved(scored, tasks, run.settings.auxiliary, run.settings.training.epochs)


def _learned(rows: pl.DataFrame, run: OpenRun) -> Supervised:
    """Returns rows to learn from, and prints what is cut from them."""
    training = run.settings.training
    objective = _objective(rows, run, training.swap, training.label_smoothing)
    cut = ", ".join(
        f"{name} {each['rows']:.1%} of rows, {each['tokens']:.1%} of tokens"
        for name, each in objective.encoded.truncation.items()
    )
    print(f"{run.label}: {len(objective.labels)} rows; cut to {run.settings.max_tokens} tokens: {cut}", flush=True)
    return objective


def _with_beside(own: Supervised, rows: pl.DataFrame, split: Split, run: OpenRun) -> Supervised:
    """Returns `own`, which is of `rows`, with the fold model's rows from elsewhere, and with what its teachers say."""
    extra, lessons, both = split.extra, split.lessons, run.settings.training.swap and run.competition.kind.mirror

    def in_both_orders(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, run.competition.mirrored(values)]) if both else values

    if extra is not None and len(extra.rows):
        more = _objective(
            extra.rows.with_columns(label=pl.Series(extra.labels)), run, run.settings.training.swap, own.smoothing
        )
        parts = own.encoded, more.encoded
        encoded = Encoded(
            [ids for part in parts for ids in part.ids],
            own.encoded.views,
            own.encoded.truncation,
            np.concatenate([part.cut for part in parts]),
        )
        weights = np.tile(extra.weights, 2 if both else 1)
        own = replace(
            own,
            encoded=encoded,
            labels=np.concatenate([own.labels, more.labels]),
            statistic=np.concatenate([own.family.statistic(own.labels), in_both_orders(extra.statistic)]),
            weights=np.concatenate([np.ones(len(own.labels)), weights]),
        )
    if lessons is not None:
        learned = [rows["id"], *([] if extra is None else [extra.rows["id"]])]
        places = [lessons.of(each) for each in learned]
        answers = np.concatenate([in_both_orders(lessons.answers[each]) for each in places])
        states = None if lessons.states is None else lessons.states[np.concatenate(places)]
        own = replace(own, lessons=replace(lessons, answers=answers, states=states), teachers=run.settings.teachers)
    return own


def _objective(rows: pl.DataFrame, run: OpenRun, both_orders: bool, smoothing: float) -> Supervised:
    settings, competition, batches = run.settings, run.competition, run.settings.training.batches
    labels, asked, mirror = rows["label"].to_numpy(), [rows], competition.kind.mirror
    if isinstance(competition.family, Categorical):
        labels = labels.astype(np.int64)
    if both_orders and mirror:
        asked.append(swapped(rows, competition.kind))
        # Other answers than classes belong to symmetric pairs: they stay.
        labels = np.concatenate([labels, np.array(mirror)[labels] if labels.ndim == 1 else labels])
    with timed("tokenising"):
        parts = [encoded_rows(each, settings, run.tokenizer, competition, run.token_cache) for each in asked]
    cut = np.concatenate([part.cut for part in parts])
    encoded = Encoded([ids for part in parts for ids in part.ids], parts[0].views, parts[0].truncation, cut)
    return Supervised(
        encoded,
        labels,
        competition.family,
        int(run.tokenizer.pad_token_id),
        run.device.name,
        batches.rows_per_step,
        batches.tokens_per_batch,
        smoothing,
        settings.training.seeds.order,
        devices=run.device.share.ranks,
    )
