"""The one training loop, for fine-tuning and pretraining alike.

rate -> forward and backward -> attack -> clip -> step -> average -> log -> guard -> evaluate -> save

A run is a function of its settings and seeds alone: the order of the rows is drawn per epoch and dropout per step, so
that a run that was killed goes on from its checkpoint as if nothing had happened, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import PodiumError
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.device import Device
from pipeline.training.gradients import Learner, gradients, norms, within_memory
from pipeline.training.guard import alarm, seen
from pipeline.training.objective import Objective
from pipeline.training.optim import adamw, bottom_and_head, rate_at
from pipeline.training.progress import track
from pipeline.training.seeds import seed_of
from pipeline.training.state import Record, State
from pipeline.training.techniques.averaging import Average, share_of
from pipeline.training.techniques.deni import Deni
from pipeline.training.techniques.proximal import Teacher

NOT_FINITE = "lower training.schedule.rate or set training.precision: fp32"


def fit(
    network: nn.Module,
    objective: Objective,
    settings: dict[str, Any],
    device: Device,
    checkpoint: Checkpoint,
    label: str,
    evaluate: Callable[[], float] | None = None,
    part: str = "train",
    steps: int | None = None,
    prior: np.ndarray | None = None,
    resting: nn.Module | None = None,
    voters: list[dict[str, Tensor]] | None = None,
) -> Record:
    """Trains what requires gradients in `network`, in place; it ends with the averaged or best weights asked for.

    `settings` are those of params.yaml's `training` (or `pretrain`) and its `seeds.dropout`; `evaluate` gives the plain
    cross entropy on the inner slice; `steps` ends the run early, its schedule too; `part` names its checkpoint. With
    the classes' shares as `prior` the guard watches: where it stops the run, the record says why, and the weights are
    of no use. `resting`, a part of the network, stays in evaluation mode; `voters` gets the weights of DENI's children.

    Raises: PodiumError where memory runs out, or the loss is not finite and no guard watches.
    """
    plan = [objective.epoch(number) for number in range(settings["epochs"])]
    total = min(steps or 10**9, sum(map(len, plan)))
    optimizer, scaler = adamw(network, settings), device.scaler()
    weights: dict[str, Tensor] = {name: each for name, each in network.named_parameters() if each.requires_grad}
    share = share_of(settings, total)
    average = Average(weights, share) if share else None
    teacher = Teacher(weights, settings["proximal"], total) if settings.get("proximal") else None
    learner = Learner(network, objective, settings, device, scaler, teacher)
    flat = [batches for epoch in plan for batches in epoch][:total]

    def rate_of(step: int) -> float:
        return rate_at(step, total, len(plan[0]), settings["schedule"])

    deni = Deni(learner, weights, flat, rate_of) if settings.get("deni") else None
    state = State(weights, optimizer, scaler, average, teacher, deni)
    done = state.restore(checkpoint, part)
    if state.record.stopped:
        return state.record
    if done:
        print(f"{label}: goes on after step {done} of {total}", flush=True)
    every = max(1, len(plan[0]) // settings.get("evaluations_per_epoch", 1))
    record, (bottom, head) = state.record, bottom_and_head(network)
    network.train()
    if resting is not None:
        resting.eval()
    for step, batches in track(list(enumerate(flat))[done:], label, lambda: _note(record, optimizer), done):
        if _out_of_patience(record, settings.get("patience", 0)):
            break
        if deni:
            with within_memory(label, settings):
                deni.before(step)
        # A step that an fp16 overflow cost does not move the schedule (it shortens it by one step at the end).
        rate = rate_of(step - record.skipped)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        torch.manual_seed(seed_of(settings["seeds"]["dropout"], step))
        with within_memory(label, settings):
            shown = gradients(learner, batches, step, step / total)
        if not math.isfinite(shown.loss):
            told = f"the loss is not finite at step {step + 1} of {total} (rate {rate:.2g}, {device.precision})"
            if prior is None:
                raise PodiumError(f"{label}: {told}; {NOT_FINITE}")
            record.stopped = told
            break
        scaler.unscale_(optimizer)
        reached = norms(bottom, head) if prior is not None else [0.0, 0.0]
        nn.utils.clip_grad_norm_(weights.values(), settings.get("clip", 1.0))
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        overflow = scaler.get_scale() < scale
        record.skipped += overflow
        if average and not overflow:
            average.update(step - record.skipped)
        if teacher and not overflow:
            teacher.update(step)
        if deni:
            deni.after(step)
        record.losses.append(shown.plain)
        if shown.attack is not None:
            record.attacks.append(shown.attack)
        if prior is not None and shown.logits is not None:
            lowest, top = reached
            record.seen.append(seen(shown.logits, shown.labels, prior, lowest, top, scaler.get_scale(), overflow))
            record.stopped = alarm(record.seen, total)
            if record.stopped:
                break
        if evaluate and ((step + 1) % every == 0 or step + 1 == total):
            state.judge(step + 1, evaluate, network)
        if checkpoint.due() and step + 1 < total:
            state.save(checkpoint, part, step + 1)
    if not record.stopped:
        state.finish()
        if deni and voters is not None:
            voters += deni.voters
    state.save(checkpoint, part, len(record.losses) if record.stopped else total)
    network.eval()
    return record


def _out_of_patience(record: Record, patience: int) -> bool:
    if not patience or record.best is None:
        return False
    return sum(step > record.best for step, _ in record.scores) >= patience


def _note(record: Record, optimizer: torch.optim.Optimizer) -> str:
    recent = record.losses[-20:]
    rate = max(group["lr"] for group in optimizer.param_groups)
    inner = f", inner {record.scores[-1][1]:.4f}" if record.scores else ""
    return f"loss {np.mean(recent):.4f}, rate {rate:.1e}{inner}" if recent else ""
